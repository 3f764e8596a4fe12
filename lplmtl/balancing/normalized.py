"""Any balancer's weights, scaled to a fixed sum."""

from typing import Any

import jax.numpy as jnp

from lplmtl.balancing import _arguments, coordinates
from lplmtl.types import Array, Balancer, PyTree


def normalized(balancer: Balancer, total: float | None = None) -> Balancer:
  """Scales another balancer's weights to the same sum in every step.

  Methods differ in the sum of their weights and so in the size of their steps:
  without this, a comparison of methods also compares learning rates. (With
  Adam, whose steps do not depend on the scale of the loss, the difference is
  small.)

  Args:
    balancer: any Balancer.
    total: > 0, the sum of the weights; None for T, the sum of `equal`.

  Returns:
    A Balancer with the same state. Tasks without a label in the batch
    (`present`) have weight 0, and the sum is smaller by their share, as it is
    for `equal`. Weights whose sum is not above 0 are left unchanged. If some
    weights are negative (`config`, `imtl_g` and `aligned_mtl`), their sum may
    be small, and the scaled step long.

  Raises:
    ValueError: `total` is not above 0; or `balancer` is an `Aggregator`, which
      has no weights to scale.
  """
  if not isinstance(balancer, Balancer):
    raise ValueError(
      'normalized scales the weights of a Balancer; found '
      f'{type(balancer).__name__}'
    )
  if total is not None:
    _arguments.check('total', total, above=0)

  def update(
    losses: Array, state: PyTree, **extra: Any
  ) -> tuple[Array, PyTree]:
    weights, state = balancer.update(losses, state, **extra)
    present = _arguments.as_present(extra.get('present'), weights)
    mask = coordinates.present_tasks(weights, present)
    weights = mask * weights
    wanted = (len(weights) if total is None else total) * mask.mean()
    actual = jnp.sum(weights)
    factor = jnp.where(actual > 0, wanted / jnp.where(actual > 0, actual, 1), 1)
    return weights * factor, state

  return balancer._replace(update=update)
