"""Studies a factor: what methods lose on generated problems, and when.

    python -m experiments.study --flagfile=experiments/flags/NAME.flags

`--problem` is a family of generated tasks whose best possible score is known
(lplmtl.data.related), with @ in place of what varies: correlation=@ for one.
At each of `--values`, each `--row` tries every `--setting` on a few draws of
the problem, takes the best by the validation rows, and is trained on
`--num_seeds` other draws. The table and the picture show its regret: what the
test metric lacks to the best possible one. Every finished fit is kept: the
same command resumes where it stopped.
"""

from absl import flags

from experiments.launcher import frame, options, parsing
from experiments.studies import options as studying

studying.define_flags()
flags.adopt_module_key_flags(studying)


def main(argv: list[str]) -> None:
  """Fits, prints and writes the study that the flags ask for."""
  with frame.command() as ready:
    # JAX and pandas take seconds to import: not for --help.
    from experiments.studies import outputs, plan, run

    options.refuse_arguments(argv)
    asked = plan.from_flags(flags.FLAGS)
    base = asked.compared.base
    folder = parsing.path('--out_dir', base.out_dir or 'runs/study')
    target = parsing.path('--publish_to', flags.FLAGS.publish_to)
    outputs.check_target(target)
    ready(base, lambda: run.interrupted(folder))
    results = run.study(asked, folder)
    if flags.FLAGS.publish_to and results['is_whole']:
      print(outputs.publish_to(folder, target))


if __name__ == '__main__':
  frame.run(main)
