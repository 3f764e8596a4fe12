"""Compares architectures, balancers and trees in one table.

    python -m experiments.compare --flagfile=experiments/flags/NAME.flags

Each `--row` tries every `--setting` and takes the best by the primary metrics
of the validation rows, their mean over the tasks: AUC for a binary task,
accuracy for classes, R² for a number (see `lplmtl.tasks`). It is then trained
with `--num_seeds` fresh seeds and scored on the test rows. A field that the row
sets overrides the setting's. Every finished fit is kept: the same command
resumes where it stopped, and with another `--baseline` it only makes another
table. Without a `--row`, `--publish_to` only makes the tables there again.

With `--data`, a table of your own, flags that are not given have the defaults
that `python -m experiments.tabular --help` shows.
"""

from absl import flags

from experiments import datasets
from experiments.comparison import options as comparing
from experiments.launcher import frame, options, parsing

options.define_flags(
  {'num_seeds': comparing.NUM_SEEDS},
  comparing.texts('runs/comparison', 'comparison'),
)
comparing.define_flags()
comparing.define_rows(
  also='; also "trees", "trees max_depth=2", and "sple teacher=best", which '
  'learns from trees and networks'
)
flags.adopt_module_key_flags(options)
flags.adopt_module_key_flags(comparing)
flags.DEFINE_multi_string(
  'tree_setting', [],
  'Compare: a setting that the trees try (repeat the flag), such as '
  '"num_leaves=15 learning_rate=0.1". Default: three, of 31 or 7 leaves, of '
  'which the validation rows decide.',
)  # fmt: skip
flags.DEFINE_string(
  'single', '',
  'Compare: the row to which MTL gain is relative. Default: single_task, if it '
  'is in the table.',
)  # fmt: skip


def main(argv: list[str]) -> None:
  """Fits, prints and writes the comparison that the flags ask for."""
  with frame.command() as ready:
    # JAX and pandas take seconds to import: not for --help.
    from experiments.comparison import plan, publish, run
    from experiments.frontier import outputs

    options.refuse_arguments(argv)
    target = parsing.path('--publish_to', flags.FLAGS.publish_to)
    if flags.FLAGS.publish_to and not flags.FLAGS.row:
      publish.refresh(target, outputs.KINDS)
      return
    publish.check(target)
    asked = plan.from_flags(flags.FLAGS)
    folder = parsing.path('--out_dir', asked.base.out_dir or 'runs/comparison')
    dataset = datasets.find(asked.base)
    ready(asked.base, lambda: run.interrupted(folder))
    results = run.compare(asked, dataset, folder)
    if flags.FLAGS.publish_to and len(results['rows']) == len(asked.rows):
      print(publish.add(folder, target, outputs.KINDS))


if __name__ == '__main__':
  frame.run(main)
