"""Settings that were given, and that nothing of what was chosen takes."""

import dataclasses
import inspect
from collections.abc import Collection, Sequence

from experiments.launcher import build as runner
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config

# A field of Config, and the fields of an architecture that are made of it.
_ARCHITECTURE = {
  'expert_widths': {'expert', 'levels'},
  'num_experts': {'num_experts'},
  'num_specific': {'num_specific'},
  'num_shared': {'num_shared'},
  'num_top': {'num_top'},
  'num_selected': {'num_selected'},
  'top': {'top'},
  'soft_sharing': {'strength'},
  'selection_entropy': {'entropy'},
  'ranks': {'ranks'},
  'bottom_widths': {'bottom'},
  'tower_widths': {'tower'},
}
# The same for the arguments of a balancer.
_BALANCER = {
  'loss_weight_learning_rate': {'learning_rate'},
  'loss_weights': {'weights', 'initial'},
  'loss_weight_rates': {'rates'},
}


def refuse(
  configs: Sequence[Config], fields: Collection[str], who: str = ''
) -> None:
  """Refuses fields that none of some Configs does anything with.

  Args:
    configs: of one run, or of the rows of a comparison.
    fields: that were given.
    who: for the message, such as a row.

  Raises:
    InputError: such a field, or an unknown name.
  """
  found: dict[str, str] = {}
  for i, config in enumerate(configs):
    runner.check_names(config)
    here = _unused(config)
    found = {k: v for k, v in here.items() if i == 0 or k in found}
  for field, part in found.items():
    if field in fields:
      others = '' if who or len(configs) == 1 else ' (nor does any other row)'
      raise InputError(
        f'{who}{part} takes no --{field}{others}: leave it out, or choose what '
        'takes it'
      )


def _unused(config: Config) -> dict[str, str]:
  """`{field: the part that does not take it}`."""
  architecture = {
    field.name
    for field in dataclasses.fields(runner.architecture(config.architecture))
  }
  balancer = set(inspect.signature(runner.balancer(config.balancer)).parameters)
  found: dict[str, str] = {}
  for part, table, taken in (
    (f'--architecture={config.architecture}', _ARCHITECTURE, architecture),
    (f'--balancer={config.balancer}', _BALANCER, balancer),
  ):
    found |= {
      name: part for name, any_of in table.items() if not any_of & taken
    }
  if config.optimizer != 'adamw':
    found['weight_decay'] = f'--optimizer={config.optimizer}'
  if not config.num_crosses:
    found['cross_rank'] = '--num_crosses=0'
  if config.dataset != 'sample':
    found['num_rows'] = f'--dataset={config.dataset}'
  return found
