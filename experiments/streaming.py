"""Measures training on a table that is read in chunks, beside one in memory.

    python -m experiments.streaming --num_rows=20_000_000

Generates Parquet of 28 columns, encodes it, and lets processes that train the
same PLE take turns: on rows in memory, on encoded rows and on Parquet. Prints
rates, and the memory that no file holds (`rate`, `memory`); what files that are
sorted by label cost in AUC (`sorted`); and whether a process that was killed in
the middle of an epoch gets the same bits as one that was not (`resume`).
"""

import os
import pathlib
import tempfile

from absl import flags

from experiments.launcher import frame, options, parsing
from experiments.launcher.errors import InputError

_MEASURES = ['rate', 'memory', 'sorted', 'resume']
flags.DEFINE_list('measures', _MEASURES, 'What to measure.')
for _name, _default, _least, _help in (
  ('num_rows', 20_000_000, 10_000, 'Rows of the large table.'),
  ('small_rows', 2_000_000, 10_000, 'Rows of the small table.'),
  ('chunk_rows', 2**19, 64, 'About how many rows a chunk has.'),
  ('rows_in_memory', 2**21, 10_000, 'At most, for the rate of rows in memory.'),
  ('turns', 3, 1, 'Of each process.'),
  ('steps', 1024, 1, 'Of a turn.'),
  ('first_steps', 128, 1, 'Before a turn is timed: about a chunk.'),
  ('threads', 1, 1, 'Cores for training, each a device of JAX.'),
  ('batch_size', 4096, 8, 'Rows of a step.'),
  ('width', 32, 1, 'Units of an expert.'),
  ('num_seeds', 3, 1, 'Models whose AUC is compared.'),
  ('epochs', 2, 1, 'Of training before AUC and bits are compared.'),
  ('test_rows', 200_000, 1000, 'Rows on which AUC is measured.'),
):
  flags.DEFINE_integer(_name, _default, _help, lower_bound=_least)
flags.DEFINE_bool(
  'reads_apart', True,
  'Whether chunks are read on other cores than those for training, as beside '
  'an accelerator; if not, reading and training share them.',
)  # fmt: skip
flags.DEFINE_string(
  'folder', '', 'Where to write rows, which are removed at the end; a '
  'temporary folder by default. 20 million rows take 4 GB.',
)  # fmt: skip
flags.DEFINE_string('out', '', 'JSON file for the figures; none by default.')


def main(argv: list[str]) -> None:
  """Measures what the flags ask for, and prints tables."""
  with frame.command() as ready:
    options.refuse_arguments(argv)
    values = flags.FLAGS
    unknown = [name for name in values.measures if name not in _MEASURES]
    if unknown:
      raise InputError(
        f'--measures must be some of {",".join(_MEASURES)}; found {unknown[0]}'
      )
    cores = len(getattr(os, 'sched_getaffinity', lambda _: [0])(0))
    if values.reads_apart and values.threads >= cores:
      raise InputError(
        f'--threads={values.threads} leaves none of {cores} cores to read on: '
        'lower it, or give --noreads_apart'
      )
    # PyArrow and JAX take seconds to import: not for --help.
    from experiments.benchmark import streamed

    ready()
    config = {
      name: values[name].value
      for name in (
        'chunk_rows', 'rows_in_memory', 'steps', 'first_steps', 'threads',
        'batch_size', 'width', 'num_seeds', 'epochs', 'test_rows',
        'reads_apart',
      )
    }  # fmt: skip
    streamed.measure(
      streamed.Asked(
        tuple(values.measures),
        values.num_rows,
        values.small_rows,
        values.turns,
        pathlib.Path(values.folder or tempfile.gettempdir()),
        config,
        parsing.path('--out', values.out) if values.out else None,
      )
    )


if __name__ == '__main__':
  frame.run(main)
