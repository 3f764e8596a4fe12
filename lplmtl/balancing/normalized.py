"""Weights of any balancer, brought to one sum."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, coordinates
from lplmtl.types import Array, Balancer, PyTree


def normalized(balancer: Balancer, total: float | None = None) -> Balancer:
  """Another balancer's weights, scaled to one sum in every step.

  Methods differ in what their weights sum to, and so in the size of their
  steps: a comparison without this one compares learning rates too. (With Adam,
  whose steps do not depend on the scale of the loss, the difference is small.)

  Args:
    balancer: any.
    total: what the weights sum to, > 0; None for T, as `equal`.

  Returns:
    A Balancer with the other's state. Tasks without a label in the batch
    (`present`) have the weight 0, and their share of the sum is missing, as it
    is with `equal`. Weights whose sum is not above 0 stay as they are, and
    where some are below 0, as `config`, `imtl_g` and `aligned_mtl` may have
    them, a small sum makes a long step.

  Raises:
    ValueError: a total that is not above 0; an `Aggregator`, which has no
      weights to scale.
  """
  if not isinstance(balancer, Balancer):
    raise ValueError(
      'only the weights of a Balancer can be brought to one sum; found '
      f'{type(balancer).__name__}'
    )
  if total is not None:
    _arguments.check('total', total, above=0)

  def update(
    losses: Array, state: PyTree, **extra: Any
  ) -> tuple[Array, PyTree]:
    weights, state = balancer.update(losses, state, **extra)
    present = _arguments.as_present(extra.get('present'), weights)
    here = coordinates.present_tasks(weights, present)
    weights = here * weights
    wanted = (len(weights) if total is None else total) * here.mean()
    found = jnp.sum(weights)
    factor = jnp.where(found > 0, wanted / jnp.where(found > 0, found, 1), 1)
    return weights * factor, state

  return balancer._replace(update=update)
