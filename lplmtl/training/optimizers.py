"""What training asks of optax's transformations, and what they ask of it."""

from typing import Any

import jax
import optax
from optax import contrib

from lplmtl.types import Array, PyTree


def update(
  optimizer: Any, gradient: PyTree, opt_state: PyTree, params: PyTree, loss: Any
) -> tuple[PyTree, PyTree]:
  """One update of any transformation, those that want the loss among them.

  These, such as `optax.contrib.reduce_on_plateau` and `optax.polyak_sgd`, are
  handed the weighted loss as `value`.

  Args:
    optimizer: an optax transformation.
    gradient: like the parameters.
    opt_state: its state.
    params: the parameters.
    loss: scalar float32.

  Returns:
    (updates, opt_state).

  Raises:
    ValueError: it wants more, such as the loss as a function.
  """
  full = optax.with_extra_args_support(optimizer)
  try:
    # optax's Adam raises a float to an integer, which strict promotion forbids.
    with jax.numpy_dtype_promotion('standard'):
      return full.update(gradient, opt_state, params, value=loss)
  except (TypeError, AttributeError) as error:
    raise ValueError(
      'the optimizer cannot take a step with the gradient, the parameters and '
      f'the loss (`value`) alone, as training wants it to ({error}): take '
      'another than optax.lbfgs, optax.lookahead and their like'
    ) from error


def averages(opt_state: PyTree) -> list[Any]:
  """The states of schedule-free optimisers in that of an optimiser."""

  def is_one(node: Any) -> bool:
    return isinstance(node, contrib.ScheduleFreeState)

  return [x for x in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(x)]


def eval_params(opt_state: PyTree, params: PyTree) -> PyTree:
  """The parameters that an optimiser means for evaluation.

  Of a schedule-free one the averages of its iterates (Defazio et al. 2024), of
  any other those that it trains.
  """
  for state in averages(opt_state):
    # Under a mask, as of optax.partition, some have no average.
    iterates = jax.tree.map(
      lambda z, own: own if _is_masked(z) else z,
      state.z,
      params,
      is_leaf=_is_masked,
    )
    found = contrib.schedule_free_eval_params(
      state._replace(z=iterates), params
    )
    params = jax.tree.map(_like, found, params)
  return params


def _is_masked(node: Any) -> bool:
  return isinstance(node, optax.MaskedNode)


def _like(found: Array, params: Array) -> Array:
  return found.astype(params.dtype)
