"""Settings that were given but that nothing chosen takes, without effect."""

import dataclasses
import inspect
from collections.abc import Collection, Sequence

from experiments.launcher import build, fields
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config


def refuse(
  configs: Sequence[Config], given: Collection[str], who: str = ''
) -> None:
  """Refuses fields that have an effect in none of the Configs.

  Args:
    configs: those of one run, or of the rows of a comparison.
    given: the fields that were given.
    who: what to begin the message with, such as a row.

  Raises:
    InputError: such a field, or an unknown architecture or balancer.
  """
  unused: dict[str, str] = {}
  for i, config in enumerate(configs):
    build.check_names(config)
    here = _unused(config)
    unused = {k: v for k, v in here.items() if i == 0 or k in unused}
  for field, choice in unused.items():
    if field in given:
      others = '' if who or len(configs) == 1 else ' (nor does any other row)'
      raise InputError(
        f'{who}{choice} takes no --{field}{others}: leave it out, or choose '
        'something that takes it'
      )


def _unused(config: Config) -> dict[str, str]:
  """Returns `{field: the choice that does not take it}`."""
  takes = {
    'architecture': {
      field.name
      for field in dataclasses.fields(build.architecture(config.architecture))
    },
    'balancer': set(
      inspect.signature(build.balancer(config.balancer)).parameters
    ),
  }
  unused = {}
  for name, setting in fields.of(Config).items():
    if setting.taken_by:
      chooser, *takers = setting.taken_by
      choice = getattr(config, chooser)
      if not takes.get(chooser, {choice}) & set(takers):
        unused[name] = f'--{chooser}={choice}'
  return unused
