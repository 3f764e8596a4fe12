"""DiSparse: a weight goes if no task needs it (Sun et al. 2022)."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.compression import calibration, leaves, programs, sparsity
from lplmtl.types import Array, Batch, PyTree

Criterion = Literal['sensitivity', 'taylor', 'magnitude']


def prune(
  model: Any,
  params: PyTree,
  batch: Batch,
  share: float,
  *,
  criterion: Criterion = 'sensitivity',
  batch_size: int = 256,
  chosen: leaves.Choice = lambda name: True,
) -> PyTree:
  """Sets the weights to 0 that all tasks agree to prune.

  Each task k ranks the weights that its loss depends on, shared or its own, by
  a saliency S_k, as if it were the only task, and would keep the share kappa of
  them. A weight goes if no task would keep it:

      B_k = [S_k is among the kappa n_k largest],  B = B_1 or ... or B_T

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters, of one seed: drawn, or trained.
    batch: calibration rows with labels of every task.
    share: the share of zeros in the result, over all chosen matrices, from 0 to
      below 1.
    criterion: the saliency, see `saliencies`.
    batch_size: rows of a batch b; rows left over are not used.
    chosen: which matrices to prune, by name.

  Returns:
    Parameters with zeros, to be trained by `fit(..., start=params)` with
    `magnitude.keep_zeros(optimizer)`.

  Raises:
    ValueError: an argument is out of range, there are no rows, or none with a
      label of some task.

  Differs from the paper: kappa is the one that gives the share of zeros; the
  paper sets it by hand for each data set. A task's own weights are those that
  its gradient reaches, which needs no list of layers. The static setting uses
  the parameters as drawn instead of drawing others for the saliency. Dynamic
  sparse training, which grows weights again, is left out.

  Example:
    >>> import lplmtl
    >>> from lplmtl import data, tasks
    >>> rows = data.clicks(100)
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> params = jax.jit(model.init)(jax.random.key(0), rows.features)['params']
    >>> sparse = prune(model, params, rows, 0.9)
    >>> int((sparse['bottom']['layer_0']['kernel'] == 0).sum()) > 8 * 128 / 2
    True

  References:
    Sun et al. 2022, "DiSparse: Disentangled Sparsification for Multitask Model
    Compression".
    Lee et al. 2019, "SNIP: Single-shot Network Pruning Based on Connection
    Sensitivity".
  """
  sparsity.check_share(share)
  scores = saliencies(
    model, params, batch, criterion=criterion, batch_size=batch_size,
    chosen=chosen,
  )  # fmt: skip
  return sparsity.mask(params, _masks(scores, share))


def saliencies(
  model: Any,
  params: PyTree,
  batch: Batch,
  *,
  criterion: Criterion = 'sensitivity',
  batch_size: int = 256,
  chosen: leaves.Choice = lambda name: True,
) -> dict[str, np.ndarray]:
  """Returns each task's saliency of every weight, as `prune` ranks them.

  Sums over batches b of calibration rows, with L_k the loss of task k alone:

  - `sensitivity`: `sum_b |w dL_k/dw|`, the connection sensitivity of SNIP, for
    parameters as drawn: prune first, then train (the static setting);
  - `taylor`: `w^2 sum_b |dL_k/dw|`, for a trained model (the pretrained setting
    in the authors' code);
  - `magnitude`: `|w|`, for a trained model (the authors' other choice for it):
    the tasks differ only in which weights they rank.

  Returns:
    `{matrix: [T, ...]}`, NaN in matrices that a task's loss does not depend on.

  Raises:
    ValueError: as for `prune`.
  """
  calibration.check_criterion(criterion, get_args(Criterion))
  batch = calibration.read(model, params, batch)
  weights = sparsity.matrices(params, chosen)
  slopes = _slopes(model, params, batch, batch_size, tuple(weights))
  if not all(np.isfinite(x).all() for x in slopes.values()):
    raise ValueError(
      'the gradients on the calibration rows are not finite: check the '
      'features and the parameters'
    )
  result = {}
  for name, weight in weights.items():
    size = np.abs(np.asarray(weight, np.float64))[None]
    slope = np.asarray(slopes[name], np.float64)
    scores = {
      'sensitivity': size * slope,
      'taylor': size**2 * slope,
      'magnitude': size,
    }[criterion]
    axes = tuple(range(1, slope.ndim))
    reached = slope.any(axis=axes, keepdims=True)
    result[name] = np.where(reached, scores, np.nan)
  return result


def _slopes(
  model: Any,
  params: PyTree,
  batch: Batch,
  batch_size: int,
  names: tuple[str, ...],
) -> dict[str, Array]:
  """Returns `sum_b |dL_k/dw|` by matrix, `[T, ...]`."""
  num_rows = _checks.num_rows(batch.features)
  size = max(1, min(int(batch_size), num_rows))
  num_batches = num_rows // size
  batches = jax.tree.map(
    lambda x: x[: num_batches * size].reshape(num_batches, size, *x.shape[1:]),
    batch,
  )
  return programs.of(_sum_slopes, model, names)(params, batches)


def _sum_slopes(
  model: Any, names: tuple[str, ...], params: PyTree, batches: Batch
) -> dict[str, Array]:
  """Returns what `_slopes` does, of `[batches, rows, ...]`."""

  def add(sums: dict[str, Array], rows: Batch) -> Any:
    jacobian = jax.jacrev(lambda p: calibration.losses_of(model, p, rows))
    named = leaves.names(jacobian(params))
    return {name: x + jnp.abs(named[name]) for name, x in sums.items()}, None

  named = leaves.names(params)
  zeros = {
    name: jnp.zeros((len(model.tasks), *named[name].shape), jnp.float32)
    for name in names
  }
  return jax.lax.scan(add, zeros, batches)[0]


def _masks(scores: dict[str, np.ndarray], share: float) -> dict[str, Any]:
  """Returns which weights stay, `{matrix: bool}`."""
  flat = np.concatenate([x.reshape(len(x), -1) for x in scores.values()], 1)
  # The smallest kappa with which some task keeps the weight.
  least = np.min([_relative_ranks(row) for row in flat], axis=0)
  keep = np.ones(least.size, bool)
  keep[np.argsort(-least, kind='stable')[: round(share * least.size)]] = False
  sizes = [x[0].size for x in scores.values()]
  parts = np.split(keep, np.cumsum(sizes)[:-1])
  return {
    name: part.reshape(scores[name].shape[1:])
    for name, part in zip(scores, parts, strict=True)
  }


def _relative_ranks(scores: np.ndarray) -> np.ndarray:
  """Returns each weight's rank, from the largest, as a share of all ranked.

  A weight that the task does not depend on has a rank after all others.
  """
  ranked = np.isfinite(scores)
  ranks = np.full(scores.size, 2.0)
  order = np.argsort(-scores[ranked], kind='stable')
  places = np.empty(order.size)
  places[order] = np.arange(1, order.size + 1)
  ranks[ranked] = places / max(order.size, 1)
  return ranks
