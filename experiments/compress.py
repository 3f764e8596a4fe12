"""The frontier of a data set: quality against bytes on a device, in one table.

    python -m experiments.compress --flagfile=experiments/flags/NAME.flags

Trains dense networks (`--dense`), takes the best by the validation rows as the
baseline and the teacher, and stores each as float32, float16 and int8. The
teacher then teaches the best dense network once more, and, by
`lplmtl.compression.compress`, small networks of `--budgets` bytes. Rivals are
boosted trees, which learn from the labels or from the teacher, and additive
models. Bytes are all constant data that a device needs to score a raw row,
counted alike for all. Every finished fit is kept: the same command resumes
where it stopped.

With `--data`, a table of your own, flags that are not given have the defaults
that `python -m experiments.tabular --help` shows, but for --interpolate.
"""

from absl import flags

from experiments import datasets
from experiments.comparison import options as comparing
from experiments.launcher import frame, options, parsing

options.define_flags()
comparing.define_flags()
flags.adopt_module_key_flags(options)
flags.adopt_module_key_flags(comparing)
flags.DEFINE_multi_string(
  'dense', [],
  'Compress: a dense network (repeat the flag): an architecture and fields of '
  'its own, such as "sple top=identity". Default: ple, then sple.',
)  # fmt: skip
flags.DEFINE_list(
  'budgets', ['512', '1024', '1434', '2048', '4096', '8192', '16384', '65536'],
  'Compress: the bytes that the models of a family may take.',
)  # fmt: skip
flags.DEFINE_list(
  'families',
  ['distilled_dense', 'net', 'trees', 'distilled_trees', 'additive'],
  'Compress: what is made as small as the budgets; empty for the dense '
  'networks alone.',
)  # fmt: skip
flags.DEFINE_integer(
  'net_steps', 14_000,
  'Compress: steps of training of a small network, which underfits for long.',
  lower_bound=1, upper_bound=1_000_000_000,
)  # fmt: skip
flags.DEFINE_integer(
  'tune_epochs', 5,
  'Compress: epochs of training after a PLE was made smaller by one of the '
  'roads; those of networks drawn small are --epochs more.',
  lower_bound=1, upper_bound=1_000_000,
)  # fmt: skip


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
