"""The data sets that the commands can be run on."""

from typing import TYPE_CHECKING

from experiments.launcher.errors import InputError

if TYPE_CHECKING:
  from experiments.datasets import base
  from experiments.launcher.options import Config


def find(config: 'Config') -> 'base.Dataset':
  """The data set that `config.dataset` names.

  Raises:
    InputError: there is no such data set.
  """
  # Deferred: commands import this package before they answer --help.
  from experiments.datasets import base
  from experiments.datasets.census import loading, protocol

  if config.dataset not in loading.DATASETS:
    raise InputError(
      f'--dataset must be one of {", ".join(loading.DATASETS)}; found '
      f'{config.dataset!r}'
    )
  return base.Dataset(
    lambda config: protocol.make_tasks(config.tasks), protocol.load
  )
