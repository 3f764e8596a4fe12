r"""The frontier of a data set: quality against bytes on a device, in one table.

    python -m experiments.compress --flagfile=experiments/flags/NAME.flags

Trains dense networks (`--dense`), takes the best by the validation rows as the
baseline and the teacher, and stores each as float32, float16 and int8. The
teacher then teaches the best dense network once more, and, by
`lplmtl.compression.compress`, small networks of `--budgets` bytes. Rivals are
boosted trees, which learn from the labels or from the teacher, and additive
models. Bytes are all constant data that a device needs to score a raw row,
counted alike for all. Every finished fit is kept: the same command resumes
where it stopped. The small networks are saved in --out_dir, to be exported:

    python -m experiments.export --model=runs/frontier/models/net_1024 \
        --format=packed --to=dist

With `--data`, a table of your own, flags that are not given have the defaults
that `python -m experiments.tabular --help` shows, but for --interpolate.
"""

from absl import flags

from experiments import datasets
from experiments.comparison import options as comparing
from experiments.frontier import options as compressing
from experiments.launcher import frame, options, parsing

options.define_flags(
  {'num_seeds': comparing.NUM_SEEDS},
  comparing.texts('runs/frontier', 'frontier', ', small models'),
)
comparing.define_flags()
compressing.define_flags()
flags.adopt_module_key_flags(options)
flags.adopt_module_key_flags(comparing)
flags.adopt_module_key_flags(compressing)


def main(argv: list[str]) -> None:
  """Fits, prints and writes the frontier that the flags ask for."""
  with frame.command() as ready:
    # JAX and pandas take seconds to import: not for --help.
    from experiments.frontier import outputs, plan, run

    options.refuse_arguments(argv)
    asked = plan.from_flags(flags.FLAGS)
    base = asked.dense.base
    folder = parsing.path('--out_dir', base.out_dir or 'runs/frontier')
    dataset = datasets.find(base)
    ready(base, lambda: run.interrupted(folder))
    results = run.compress(asked, dataset, folder)
    if flags.FLAGS.publish_to and results['is_whole']:
      target = parsing.path('--publish_to', flags.FLAGS.publish_to)
      print(outputs.publish_to(folder, target))


if __name__ == '__main__':
  frame.run(main)
