"""Settings that were given but that nothing chosen takes, without effect."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from experiments.launcher import build, fields
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config

# `{field: (all its choices, from a choice to what constructs it)}`
_CHOOSERS: dict[str, tuple[Callable[[], tuple[str, ...]], Callable[..., Any]]]
_CHOOSERS = {
  'architecture': (build.architecture_names, build.architecture),
  'balancer': (build.balancer_names, build.balancer),
}
_SHOWN = 4  # choices that a message lists: a line has room for few more


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
    here = ignored(config)
    unused = {k: v for k, v in here.items() if i == 0 or k in unused}
  for field, choice in unused.items():
    if field in given and fields.of(Config)[field].taken_by[:1] == ('source',):
      raise InputError(_other_source(field, configs[0]))
    if field in given:
      others = '' if who or len(configs) == 1 else ' (nor does any other row)'
      raise InputError(
        f'{who}{choice} takes no --{field}{others}: leave it out, or choose '
        f'{_takers(field)}'
      )


def ignored(config: Config) -> dict[str, str]:
  """Returns `{field: the choice that does not take it}`."""
  takes = {name: _taken(name, getattr(config, name)) for name in _CHOOSERS}
  unused = {}
  for name, setting in fields.of(Config).items():
    if setting.taken_by:
      chooser, *takers = setting.taken_by
      choice = getattr(config, chooser)
      if not takes.get(chooser, {choice}) & set(takers):
        unused[name] = f'--{chooser}={choice}'
  return unused


def _other_source(field: str, config: Config) -> str:
  """Returns what to say about a field of other data than a Config's."""
  if config.data:
    return (
      f'--{field} is for Census-Income: leave it out, or leave out '
      f'--data={config.data}'
    )
  return f'--{field} is for a table: leave it out, or name one with --data'


def _takers(field: str) -> str:
  """Returns the choices that take a field, as text."""
  taken_by: Sequence[Any] = fields.of(Config)[field].taken_by
  chooser, takers = taken_by[0], taken_by[1:]
  names: Sequence[object] = takers
  if chooser in _CHOOSERS:
    every, _ = _CHOOSERS[chooser]
    names = [n for n in every() if _taken(chooser, n) & set(takers)]
  if len(names) > _SHOWN:
    names = [*names[:_SHOWN], '...']
  return f'--{chooser}={" or ".join(map(str, names))}'


def _taken(chooser: str, name: str) -> set[str]:
  """Returns the arguments of an architecture or a balancer."""
  _, make = _CHOOSERS[chooser]
  return set(inspect.signature(make(name)).parameters)
