"""What training requires of optax transformations, and passes to them."""

from typing import Any

import jax
import optax
from optax import contrib

from lplmtl.types import Array, PyTree


def update(
  optimizer: Any, gradient: PyTree, opt_state: PyTree, params: PyTree, loss: Any
) -> tuple[PyTree, PyTree]:
  """Calls the update of any transformation, including those that need the loss.

  The latter, such as `optax.contrib.reduce_on_plateau` and `optax.polyak_sgd`,
  receive the weighted loss as `value`.

  Args:
    optimizer: an optax transformation.
    gradient: like the parameters.
    opt_state: its state.
    params: the parameters.
    loss: scalar float32.

  Returns:
    (updates, opt_state).

  Raises:
    ValueError: `optimizer` needs more, such as the loss as a function.
  """
  full = optax.with_extra_args_support(optimizer)
  try:
    # Adam in optax raises a float to an integer power, which strict promotion
    # forbids.
    with jax.numpy_dtype_promotion('standard'):
      return full.update(gradient, opt_state, params, value=loss)
  except (TypeError, AttributeError) as error:
    raise ValueError(
      'the optimizer cannot take a step with only the gradient, the parameters '
      f'and the loss (`value`), as training does ({error}): optax.lbfgs, '
      'optax.lookahead and similar ones do not work'
    ) from error


def averages(opt_state: PyTree) -> list[Any]:
  """Lists the schedule-free states inside an optimiser's state."""

  def is_one(node: Any) -> bool:
    return isinstance(node, contrib.ScheduleFreeState)

  return [x for x in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(x)]


def eval_params(opt_state: PyTree, params: PyTree) -> PyTree:
  """Returns the parameters to evaluate.

  For a schedule-free optimiser, these are the averages of its iterates (Defazio
  et al. 2024); for any other, the parameters that it trains.
  """
  for state in averages(opt_state):
    # Under a mask, such as that of optax.partition, some have no average.
    iterates = jax.tree.map(
      lambda z, param: param if _is_masked(z) else z,
      state.z,
      params,
      is_leaf=_is_masked,
    )
    averaged = contrib.schedule_free_eval_params(
      state._replace(z=iterates), params
    )
    params = jax.tree.map(_with_dtype_of, averaged, params)
  return params


def _is_masked(node: Any) -> bool:
  return isinstance(node, optax.MaskedNode)


def _with_dtype_of(average: Array, param: Array) -> Array:
  return average.astype(param.dtype)
