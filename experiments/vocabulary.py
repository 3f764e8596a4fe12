"""Measures what a training step costs as embedding tables grow.

    python -m experiments.vocabulary --table_rows=10000,100000,1000000,10000000

The contestants are dense Adam, the row-sparse optimisers of `lplmtl.sparse` and
composed embeddings. All take turns in one process, on one thread, in an order
that is reversed each time; figures are medians of the CPU time of a step. Ten
million rows of 16 numbers need 8 GB of memory.
"""

import os

from absl import flags

from experiments.launcher import frame, options, parsing

flags.DEFINE_list(
  'table_rows', ['10000', '100000', '1000000'],
  'Rows of the embedding table, for each column an equal part.',
)  # fmt: skip
for _name, _default, _help in (
  ('columns', 4, 'Columns of categories.'),
  ('width', 16, 'Width of an embedding.'),
  ('rows_per_step', 4096, 'Rows of a training step.'),
  ('steps_per_turn', 10, 'Steps of each turn.'),
):
  flags.DEFINE_integer(
    _name, _default, _help, lower_bound=1, upper_bound=1_000_000
  )
# Other commands have flags of these names, too: a process may import both.
flags.DEFINE_integer(
  'turns', 15, 'Of each contestant.', lower_bound=2, upper_bound=100_000,
  allow_override=True,
)  # fmt: skip
flags.DEFINE_string(
  'out', '', 'JSON file for the figures; none by default.', allow_override=True
)


def main(argv: list[str]) -> None:
  """Measures what the flags ask for, and prints a table."""
  with frame.command() as ready:
    options.refuse_arguments(argv)
    values = flags.FLAGS
    # Before JAX starts: CPU time is that of one thread.
    single = '--xla_cpu_multi_thread_eigen=false'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {single}'
    # JAX takes seconds to import: not for --help.
    from experiments.benchmark import vocabulary

    ready()
    vocabulary.measure(
      vocabulary.Asked(
        vocabulary.sizes(values.table_rows, values.columns),
        values.columns,
        values.width,
        values.rows_per_step,
        values.steps_per_turn,
        values.turns,
        parsing.path('--out', values.out) if values.out else None,
      )
    )


if __name__ == '__main__':
  frame.run(main)
