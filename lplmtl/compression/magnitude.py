"""Sparse matrices: the smallest weights go, at once or gradually in training.

    optimizer = magnitude.gradual(optax.adam(1e-3), 0.9, begin=200, end=2000)
    result = lplmtl.fit(key, model, optimizer, balancer, data)
    # Fine-tuned with the same zeros; now selected on the validation rows:
    result = lplmtl.fit(key, model, magnitude.keep_zeros(optax.adam(1e-4)),
                        balancer, data, validation=validation,
                        start=result.params)

The first call has no validation rows, as `fit` would select an epoch before the
last, whose share of zeros is smaller.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from lplmtl import _checks
from lplmtl.compression import leaves, sparsity
from lplmtl.types import Array, PyTree

# One bool array for each matrix that is pruned, in the order of the parameters.
Masks = tuple[Array, ...]


class MaskedState(NamedTuple):
  """State of `gradual` and `keep_zeros`.

  Attributes:
    step: scalar int32, the number of steps taken.
    masks: per matrix, bool of its shape, False for zeros that stay.
    inner: the state of the optimiser inside.
  """

  step: Array
  masks: Masks
  inner: Any


def prune(
  params: PyTree, share: float, *, chosen: leaves.Choice = lambda name: True
) -> PyTree:
  """Sets the smallest weights of every matrix to 0.

  Args:
    params: parameters of one seed.
    share: the share of zeros in each matrix, from 0 to below 1, rounded to
      whole weights; experts in one stack count as one matrix.
    chosen: which matrices to prune, by name, such as
      `lambda name: 'encoder' not in name`.

  Raises:
    ValueError: the share is out of range, or no matrix is chosen.

  Example:
    >>> prune({'kernel': jnp.array([[3.0, -1.0], [0.5, 2.0]])}, 0.5)
    {'kernel': Array([[3., 0.],
           [0., 2.]], dtype=float32)}
  """
  sparsity.check_share(share)
  masks = {
    name: sparsity.largest(jnp.abs(leaf), share)
    for name, leaf in sparsity.matrices(params, chosen).items()
  }
  return sparsity.mask(params, masks)


def share_at(step: Any, share: float, begin: int, end: int) -> Array:
  """Returns the share of zeros after a step of gradual pruning.

  It rises quickly while there are many weights to choose from, and levels off
  (Zhu & Gupta 2017, eq. 1, with the first share 0):

      s_t = s (1 - (1 - (t - begin) / (end - begin))^3)

  Args:
    step: t, steps taken so far; a whole number or an array of them.
    share: s, the last share of zeros.
    begin: the step before which the share is 0.
    end: the step from which it is s.

  Example:
    >>> [round(float(share_at(t, 0.8, 0, 100)), 3) for t in (0, 25, 50, 100)]
    [0.0, 0.463, 0.7, 0.8]
  """
  rise = optax.polynomial_schedule(0.0, share, 3, end - begin, begin)
  return jnp.asarray(rise(step))


def gradual(
  optimizer: optax.GradientTransformation,
  share: float,
  *,
  begin: int,
  end: int,
  every: int = 100,
  chosen: leaves.Choice = lambda name: True,
) -> optax.GradientTransformationExtraArgs:
  """Prunes the smallest weights of every matrix while an optimiser trains.

  Every so many steps, the weights that are smallest after the update become 0
  until a matrix has the share `share_at` of zeros. A weight that is 0 stays 0,
  exactly, and receives no gradient.

  Args:
    optimizer: any optax transformation that `fit` takes, except schedule-free
      ones, whose averages would not keep the zeros.
    share: the last share of zeros in each matrix, above 0 and below 1.
    begin: the first step that prunes, >= 0.
    end: the step that reaches the share; `fit` takes `num_epochs *
      floor(N / batch_size)` steps, and should go on for some.
    every: steps from one pruning to the next; 100 to 1000 in the paper.
    chosen: which matrices to prune, by name.

  Differs from the paper: pruned weights are set to 0 instead of hidden by a
  mask, which never return in the paper either, as the share only rises; with
  several seeds in one `fit`, the weights are sorted at every step.

  References:
    Zhu & Gupta 2017, "To Prune, or Not to Prune: Exploring the Efficacy of
    Pruning for Model Compression".

  Raises:
    ValueError: an argument is out of range, no matrix is chosen, or the
      optimiser is schedule-free.
  """
  sparsity.check_share(share, least_is_out=True)
  steps = ('begin', begin, 0), ('end', end, 1), ('every', every, 1)
  for name, value, least in steps:
    if not _checks.is_whole_number(value, least):
      raise ValueError(
        f'{name} must be a whole number of at least {least}, found {value!r}'
      )
  if end <= begin:
    raise ValueError(
      f'end must be a step after begin, found begin={begin} and end={end}'
    )

  def masks_at(step: Array, params: PyTree, masks: Masks) -> Masks:
    is_due = (step >= begin) & (step <= end) & ((step - begin) % every == 0)
    now = share_at(step, share, begin, end)

    def prune_more() -> Masks:
      weights = _values(params, chosen)
      # What is pruned is smaller than anything else.
      return tuple(
        sparsity.largest(jnp.where(stay, jnp.abs(w), -1), now)
        for w, stay in zip(weights, masks, strict=True)
      )

    return jax.lax.cond(is_due | (step == end), prune_more, lambda: masks)

  def start(params: PyTree) -> Masks:
    return tuple(jnp.ones_like(w, bool) for w in _values(params, chosen))

  return _masked(optimizer, chosen, start, masks_at)


def keep_zeros(
  optimizer: optax.GradientTransformation,
  *,
  chosen: leaves.Choice = lambda name: True,
) -> optax.GradientTransformationExtraArgs:
  """Keeps zero weights at 0, to fine-tune a sparse model.

  Use it with `fit(..., start=params)`.

  Args:
    optimizer: as for `gradual`.
    chosen: the matrices of which the weights that are 0 at the start stay so,
      by name.
  """

  def start(params: PyTree) -> Masks:
    return tuple(w != 0 for w in _values(params, chosen))

  return _masked(optimizer, chosen, start, lambda step, params, masks: masks)


def sparse_bytes(params: PyTree, bits: int = 32) -> int:
  """Counts the bytes of sparse parameters: the masks, and what is not 0.

  A matrix of n weights takes n bits that say which are 0, and the others; or
  all n weights, if that is less. Other parameters are float32.

  Args:
    params: parameters, of one seed.
    bits: of a weight in a matrix. Scales of integers are not counted.

  Example:
    >>> kernel = jnp.zeros((8, 4)).at[0].set(1.0)
    >>> sparse_bytes({'kernel': kernel, 'bias': jnp.ones(4)})  # 4 + 16 + 16
    36
  """
  total = 0
  for name, leaf in leaves.names(params).items():
    if leaves.is_matrix(name, leaf):
      values = int(np.count_nonzero(leaf)) * bits
      total += min(
        -(-leaf.size // 8) - (-values // 8), -(-leaf.size * bits // 8)
      )
    else:
      total += 4 * leaf.size
  return total


def _values(params: PyTree, chosen: leaves.Choice) -> list[Any]:
  return list(sparsity.matrices(params, chosen).values())


def _masked(
  optimizer: optax.GradientTransformation,
  chosen: leaves.Choice,
  start: Any,
  masks_at: Any,
) -> optax.GradientTransformationExtraArgs:
  """Wraps an optimiser, whose updates lead to 0 where masks are False.

  Args:
    optimizer: what is wrapped.
    chosen: which matrices have masks.
    start: `params -> masks`.
    masks_at: `(step, params after the update, masks) -> masks`.
  """
  full = optax.with_extra_args_support(optimizer)

  def init(params: PyTree) -> MaskedState:
    inner = full.init(params)
    _check_plain(inner)
    return MaskedState(jnp.zeros((), jnp.int32), start(params), inner)

  def update(
    gradient: PyTree, state: MaskedState, params: Any = None, **extra: Any
  ) -> tuple[PyTree, MaskedState]:
    names = list(sparsity.matrices(params, chosen))
    masks = dict(zip(names, state.masks, strict=True))
    updates, inner = full.update(
      sparsity.mask(gradient, masks), state.inner, params, **extra
    )
    step = state.step + 1
    after = optax.apply_updates(params, updates)
    new = masks_at(step, after, state.masks)
    masks = dict(zip(names, new, strict=True))
    # w + (-w) is 0 exactly.
    updates = leaves.map_named(
      lambda name, update, w: (
        jnp.where(masks[name], update, -w) if name in masks else update
      ),
      updates,
      params,
    )
    return updates, MaskedState(step, new, inner)

  return optax.GradientTransformationExtraArgs(init, update)


def _check_plain(inner: Any) -> None:
  def is_average(node: Any) -> bool:
    return isinstance(node, contrib.ScheduleFreeState)

  nodes = jax.tree.leaves(inner, is_leaf=is_average)
  if any(map(is_average, nodes)):
    raise ValueError(
      'a schedule-free optimizer averages its iterates, which does not keep '
      'zeros: prune with another one, such as optax.adamw'
    )
