"""The data sets on which commands can be run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from experiments.datasets import base
  from experiments.launcher.options import Config


def find(config: 'Config') -> 'base.Dataset':
  """Returns the data set that a Config names: a table, or Census-Income.

  A further data set is chosen here.
  """
  # Deferred: commands import this package before they answer --help.
  from experiments.datasets.census import protocol as census
  from experiments.datasets.tables import protocol as tables

  return tables.DATASET if config.data else census.DATASET
