"""The plan of a frontier: dense networks, families, budgets, seeds."""

import dataclasses
from collections.abc import Sequence

from absl import flags

from experiments.comparison import options as comparing
from experiments.comparison import plan as comparison
from experiments.frontier import options as compressing
from experiments.launcher import options
from experiments.launcher.errors import InputError

_LEAST, _MOST = 16, 2**24


@dataclasses.dataclass(frozen=True)
class Plan:
  """What stands on the frontier.

  Attributes:
    dense: the dense networks, their settings and seeds; its baseline is the
      first of them until validation rows decide.
    families: what is made as small as the budgets, of `options.FAMILIES`.
    budgets: bytes, ascending.
    net_steps: of training each small network.
    tune_epochs: of training a network after it was made smaller.
  """

  dense: comparison.Plan
  families: tuple[str, ...] = compressing.FRONTIER
  budgets: tuple[int, ...] = compressing.BUDGETS
  net_steps: int = compressing.NET_STEPS
  tune_epochs: int = compressing.TUNE_EPOCHS

  def __post_init__(self) -> None:
    unknown = [
      name for name in self.families if name not in compressing.FAMILIES
    ]
    if unknown:
      raise InputError(
        f'--families: there is no {unknown[0]!r}; expected some of '
        f'{", ".join(compressing.FAMILIES)}'
      )
    for given, flag in ((self.families, 'families'), (self.budgets, 'budgets')):
      if len(set(given)) < len(given):
        raise InputError(f'--{flag} names one of {_listed(given)} twice')
    for budget in self.budgets:
      if not _LEAST <= budget <= _MOST:
        raise InputError(
          f'--budgets must be whole numbers of bytes from {_LEAST} to '
          f'{_MOST:,}; found {budget}'
        )
    if self.families and not self.budgets:
      raise InputError('--budgets must name at least one number of bytes')
    if self.dense.base.interpolate:
      raise InputError(
        '--interpolate: positions among edges have no packed form, so their '
        'bytes cannot be counted: leave the flag out'
      )


def from_flags(values: flags.FlagValues) -> Plan:
  """Returns the Plan that parsed flags ask for."""
  for name in comparing.MEANINGLESS:
    if values[name].present:
      raise InputError(
        f'--{name} has no effect here: leave it out (--dense names the '
        'architectures, and finished fits are always kept)'
      )
  base = options.from_flags(values)
  if not values['num_seeds'].present:
    base = dataclasses.replace(base, num_seeds=comparing.NUM_SEEDS)
  if base.data and not values['interpolate'].present:
    base = dataclasses.replace(base, interpolate=False)
  rows = {}
  for name in values.dense or compressing.DENSE:
    fields_of_row = comparison.parse_row(name, 'dense')
    if fields_of_row is None:
      raise InputError('--dense=trees: only networks can be dense')
    rows[name] = fields_of_row
  dense = comparison.Plan(
    base=base,
    rows=rows,
    settings={name: comparison.parse_setting(name) for name in values.setting},
    tree_settings={},
    tuning_seeds=values.tuning_seeds,
    baseline=next(iter(rows)),
    margin=values.margin,
    max_minutes=values.max_minutes,
    given=options.given(values),
  )
  return Plan(
    dense,
    tuple(values.families),
    _budgets(values.budgets),
    values.net_steps,
    values.tune_epochs,
  )


def _budgets(texts: Sequence[str]) -> tuple[int, ...]:
  budgets = []
  for text in texts:
    try:
      budgets.append(int(text))
    except ValueError as error:
      raise InputError(
        '--budgets must be whole numbers of bytes, separated by commas, such '
        f'as 1024,2048; found {text!r}'
      ) from error
  return tuple(sorted(budgets))


def _listed(values: Sequence[object]) -> str:
  return ', '.join(map(str, values))
