"""Compares architectures, balancers and trees in one table.

    python -m experiments.compare --flagfile=experiments/flags/NAME.flags

Each `--row` tries every `--setting` and takes the best by the primary metrics
of the validation rows, their mean over the tasks: AUC for a binary task,
accuracy for classes, R² for a number (see `lplmtl.tasks`). It is then trained
with `--num_seeds` fresh seeds and scored on the test rows. A field that the row
sets overrides the setting's. Every finished fit is kept: the same command
resumes where it stopped, and with another `--baseline` it only makes another
table.

With `--data`, a table of your own, flags that are not given have the defaults
that `python -m experiments.tabular --help` shows.
"""

from absl import flags

from experiments import datasets
from experiments.launcher import frame, options, parsing

options.define_flags()
flags.adopt_module_key_flags(options)
flags.DEFINE_multi_string(
  'row', [],
  'Compare: a row of the table (repeat the flag): an architecture and fields '
  'of its own, such as "sple top=identity balancer=equal", or "trees".',
)  # fmt: skip
flags.DEFINE_multi_string(
  'setting', [],
  'Compare: a setting that every row tries (repeat the flag), such as '
  '"dropout=0.2 expert_widths=32,32 bottom_widths=128". Default: one, as the '
  'flags say, so that nothing is tuned.',
)  # fmt: skip
flags.DEFINE_multi_string(
  'tree_setting', [],
  'Compare: a setting that the trees try (repeat the flag), such as '
  '"num_leaves=15 learning_rate=0.1". Default: three, of 31 or 7 leaves, of '
  'which the validation rows decide.',
)  # fmt: skip
flags.DEFINE_integer(
  'tuning_seeds', 3,
  'Compare: seeds per setting, if there are several. --num_seeds, here 5 by '
  'default, is the number of fresh ones with which the best is trained.',
  lower_bound=1, upper_bound=10_000,
)  # fmt: skip
flags.DEFINE_string(
  'baseline', '',
  'Compare: the row from which differences are taken. Default: the first.',
)  # fmt: skip
flags.DEFINE_string(
  'single', '',
  'Compare: the row to which MTL gain is relative. Default: single_task, if it '
  'is in the table.',
)  # fmt: skip
flags.DEFINE_float(
  'margin', None,
  'Compare: a row is equivalent to the baseline if its interval lies within '
  "± this on every task, in the unit of the task's primary metric. Default: "
  '0.002 for AUC, 0.005 for accuracy, 0.01 for R², D² and kappa.',
  lower_bound=0.0,
)  # fmt: skip
flags.DEFINE_float(
  'max_minutes', 0.0,
  'Compare: no fit starts after this many minutes; 0 for no limit.',
  lower_bound=0.0,
)  # fmt: skip
flags.DEFINE_string(
  'publish_to', '',
  'Compare: folder of published comparisons, such as experiments/results, to '
  'which the figures, the pictures and the tables of its .md files are written '
  'once all rows are finished. Without a --row, the tables are regenerated '
  'from the figures that the folder holds.',
)  # fmt: skip


def main(argv: list[str]) -> None:
  """Fits, prints and writes the comparison that the flags ask for."""
  with frame.command(
    'interrupted: finished fits are kept, and the same command resumes'
  ) as ready:
    # JAX and pandas take seconds to import: not for --help.
    from experiments.comparison import plan, publish, run

    options.refuse_arguments(argv)
    target = parsing.path('--publish_to', flags.FLAGS.publish_to)
    if flags.FLAGS.publish_to and not flags.FLAGS.row:
      publish.refresh(target)
      return
    asked = plan.from_flags(flags.FLAGS)
    folder = parsing.path('--out_dir', asked.base.out_dir or 'runs/comparison')
    dataset = datasets.find(asked.base)
    ready(asked.base)
    results = run.compare(asked, dataset, folder)
    if flags.FLAGS.publish_to and len(results['rows']) == len(asked.rows):
      print(publish.add(folder, target))


if __name__ == '__main__':
  frame.run(main)
