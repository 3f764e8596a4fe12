"""Measures what several processes cost, and predicts what many devices do.

    python -m experiments.scaling --out=scaling.json

Times a step on one process, how long processes on this machine take to add up
vectors, and how fast a core reads rows; predicts from these the steps of 2 and
4 processes, measures them as well, and prints what the same formula says of 8,
64 and 512 devices; see experiments/benchmark/SCALE.md. Needs the extra tables.
"""

from absl import flags

from experiments.launcher import frame, options, parsing
from experiments.launcher.errors import InputError

flags.DEFINE_list('processes', ['1', '2', '4'], 'How many train together.')
flags.DEFINE_list(
  'batch_sizes', ['1024', '4096'], 'Rows of a step, over all processes.',
  allow_override=True,
)  # fmt: skip
flags.DEFINE_list(
  'times_as_fast', ['100'],
  'Predicted devices, relative to a core of this machine.',
)  # fmt: skip
flags.DEFINE_enum(
  'trained', 'SPLE', ['SPLE', 'PLE', 'MMoE'], 'The model that is trained.',
  allow_override=True,
)  # fmt: skip
for _name, _default, _least, _help in (
  ('width', 64, 1, 'Units of an expert.'),
  ('steps', 32, 1, 'Of an epoch.'),
  ('turns', 7, 1, 'Epochs and exchanges that are timed; medians are taken.'),
  ('rows_to_read', 2**21, 10_000, 'Rows that are written, and read.'),
  ('rows_per_device', 4096, 1, 'Rows of a predicted step.'),
  ('look_ups', 4, 1, 'In tables that devices hold in parts: columns.'),
  ('embed_width', 16, 1, 'Of the embeddings in such tables.'),
  ('memory_gb', 16, 1, 'Of a predicted device.'),
):
  flags.DEFINE_integer(
    _name, _default, _help, lower_bound=_least, allow_override=True
  )
flags.DEFINE_string(
  'out', '', 'JSON file for the figures; none by default.', allow_override=True
)


def main(argv: list[str]) -> None:
  """Measures what the flags ask for, and prints tables."""
  with frame.command() as ready:
    options.refuse_arguments(argv)
    values = flags.FLAGS
    processes, batch_sizes, speeds = (
      parsing.parse_counts(f'--{name}', getattr(values, name))
      for name in ('processes', 'batch_sizes', 'times_as_fast')
    )
    if max(processes) == 1:
      raise InputError('--processes must name more than one, such as 1,2,4')
    for batch_size in batch_sizes:
      for count in processes:
        if batch_size % count:
          raise InputError(
            f'--batch_sizes={batch_size} must be a multiple of {count}, as '
            f'{count} processes share its rows'
          )
    # PyArrow and JAX take seconds to import: not for --help.
    from experiments.benchmark import scaled

    ready()
    worker = {'model': values.trained} | {
      name: values[name].value for name in ('width', 'steps', 'turns')
    }
    scaled.measure(
      scaled.Asked(
        tuple(sorted({1, *processes})),
        tuple(batch_sizes),
        worker,
        values.rows_to_read,
        values.rows_per_device,
        tuple(speeds),
        values.look_ups,
        values.embed_width,
        values.memory_gb * 1e9,
        parsing.path('--out', values.out) if values.out else None,
      )
    )


if __name__ == '__main__':
  frame.run(main)
