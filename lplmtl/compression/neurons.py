"""Removes the hidden units that matter least: narrower experts and towers."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.compression import (
  calibration,
  leaves,
  programs,
  sparsity,
  unit_search,
  units,
)
from lplmtl.types import Array, Batch, PyTree

Criterion = Literal['taylor', 'norm']


def prune(
  model: Any,
  params: PyTree,
  batch: Batch,
  share: float,
  *,
  criterion: Criterion = 'taylor',
  chosen: leaves.Choice = lambda name: True,
) -> tuple[Any, PyTree]:
  """Removes the least important units of a model's MLPs.

  Removing unit h of a layer removes the weights into it, its bias, and the
  weights that read its output: exactly the model in which its output is 0.
  The importance of a unit is

  - `taylor`: the first-order change of the loss if its output were 0, the mean
    over rows of `|h dC/dh|` (Molchanov et al. 2017, eq. 8), with C the sum of
    the tasks' losses;
  - `norm`: the sum of the absolute values of the weights into it and of its
    bias (Li et al. 2017).

  Importances are divided by their norm in each layer, so that layers can be
  compared, and the smallest of all layers go. Copies of a template keep equal
  widths: each expert and each tower chooses its own units, but what the experts
  of a level put out is added up by gates, and loses the same units in all.

  Args:
    model: an architecture whose fields hold `lplmtl.MLP`, or your own Linen
      module with such fields.
    params: its trained parameters, of one seed.
    batch: calibration rows with labels of every task; some hundred suffice.
    share: the share of units that go, above 0 and below 1, over all layers;
      each layer keeps one at least.
    criterion: see above.
    chosen: which layers to prune, by names such as `levels[0].widths[0]`,
      `tower.widths[0]`.

  Returns:
    (model, params): the narrower model, to be fine-tuned by
    `fit(..., start=params)`.

  Raises:
    ValueError: an argument is out of range, there are no rows or none with a
      label of some task, the parameters are those of another model, no layer
      has units that can be removed, or an activation is not 0 at 0.

  Differs from the paper: all units go at once, instead of one by one with
  updates in between. Take shares of about 0.2 and fine-tune after each: where
  the loss is near 0 on most rows, its derivative says little of larger shares,
  and a tower may be left with units that are 0 on all of these rows.

  References:
    Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource
    Efficient Inference".
    Li et al. 2017, "Pruning Filters for Efficient ConvNets".
  """
  smaller, (new,) = prune_seeds(
    model, [params], batch, share, criterion=criterion, chosen=chosen
  )
  return smaller, new


def prune_seeds(
  model: Any,
  seeds: Sequence[PyTree],
  batch: Batch,
  share: float,
  *,
  criterion: Criterion = 'taylor',
  chosen: leaves.Choice = lambda name: True,
) -> tuple[Any, list[PyTree]]:
  """Removes units of several seeds of a model, which stay one population.

  Each seed chooses its own units, as copies of a template do, by importances
  that are averaged over the seeds to say how many each layer loses: `fit` can
  then train all of them at once.

  Args:
    model: as for `prune`.
    seeds: the parameters of each seed.
    batch: as for `prune`; likewise the rest.

  Returns:
    (model, seeds): the narrower model, and the parameters of each seed.

  Raises:
    ValueError: there are no seeds, or as for `prune`.
  """
  sparsity.check_share(share, 'units that go', least_is_out=True)
  if not seeds:
    raise ValueError('expected the parameters of at least one seed, found none')
  layers, scored = _scored(model, seeds, batch, criterion, chosen)
  scores = {
    layer.name: np.concatenate([found[layer.name] for found in scored])
    for layer in layers
  }
  all_kept = {
    name: np.split(numbers, len(seeds))
    for name, numbers in _choose(layers, scores, share).items()
  }
  rows = jax.tree.map(lambda x: x[:256], batch.features)
  new = []
  for i, params in enumerate(seeds):
    kept = {name: numbers[i] for name, numbers in all_kept.items()}
    smaller, small = units.remove(model, params, layers, kept)
    masked = units.mask(params, layers, kept)
    _check_equal(
      programs.of(_predict, model)(masked, rows),
      programs.of(_predict, smaller)(small, rows),
    )
    new.append(small)
  return smaller, new


def importances(
  model: Any,
  params: PyTree,
  batch: Batch,
  *,
  criterion: Criterion = 'taylor',
  chosen: leaves.Choice = lambda name: True,
) -> dict[str, np.ndarray]:
  """Returns the importance of every unit, as `prune` compares them.

  Returns:
    `{layer: [copies, width]}`, of norm 1; the copies are those of the template
    that choose their own units.

  Raises:
    ValueError: as for `prune`.
  """
  (found,) = _scored(model, [params], batch, criterion, chosen)[1]
  return found


def _scored(
  model: Any,
  seeds: Sequence[PyTree],
  batch: Batch,
  criterion: Criterion,
  chosen: leaves.Choice,
) -> tuple[list[units.Layer], list[dict[str, np.ndarray]]]:
  """Returns the layers, and the `importances` of each seed."""
  calibration.check_criterion(criterion, get_args(Criterion))
  batch = calibration.read(model, seeds[0], batch)
  layers = _layers(model, seeds[0], batch, chosen)
  score = (
    _norms(layers)
    if criterion == 'norm'
    else jax.jit(_taylor(model, batch, layers))
  )
  shapes = jax.tree.map(np.shape, seeds[0])
  found = []
  for params in seeds:
    if jax.tree.map(np.shape, params) != shapes:
      raise ValueError(
        'the seeds must be those of one model, found parameters of other '
        'shapes: prune them one by one'
      )
    scores = {}
    for layer, raw in zip(layers, score(params), strict=True):
      values = np.asarray(raw, np.float64)
      if not np.isfinite(values).all():
        raise ValueError(
          'importances are not finite: check the features and the parameters'
        )
      scores[layer.name] = values / max(float(np.linalg.norm(values)), 1e-30)
    found.append(scores)
  return layers, found


def _norms(layers: list[units.Layer]) -> Callable[[PyTree], list[Any]]:
  """Returns a function of parameters, to `[copies, width]` per layer.

  By NumPy: a program that sums each copy takes long to compile.
  """

  def norms(params: PyTree) -> list[Any]:
    named = {
      name: np.abs(np.asarray(x, np.float64))
      for name, x in leaves.names(params).items()
    }
    return [np.stack(_sum_units(layer, named, -1)) for layer in layers]

  return norms


def _taylor(
  model: Any, batch: Batch, layers: list[units.Layer]
) -> Callable[[PyTree], list[Array]]:
  """Returns a function to the mean over rows of `|h dC/dh|`, like `_norms`.

  `h dC/dh` is the sum of `w dC/dw` over the weights w that read h: they see h
  only as `w h`.
  """

  def mean(params: PyTree) -> list[Array]:
    def one(row: Batch) -> list[Array]:
      rows = jax.tree.map(lambda x: x[None], row)
      slopes = jax.grad(
        lambda p: calibration.losses_of(model, p, rows).sum(), allow_int=True
      )(params)
      products = jax.tree.map(jnp.multiply, params, slopes)
      named = leaves.names(products)
      return [
        jnp.abs(jnp.stack(_sum_units(layer, named, -2))) for layer in layers
      ]

    # In blocks, which bounds the memory: each row has a gradient of its own.
    each = jax.lax.map(one, batch, batch_size=32)
    return [x.mean(axis=0) for x in each]

  return mean


def _sum_units(
  layer: units.Layer, named: dict[str, Any], end: int
) -> list[Any]:
  """Sums, for each unit of each copy, over the weights at one end of it."""
  rows = []
  for copy in layer.copies:
    total: Any = np.zeros(layer.width, np.float32)
    for axis in (a for a in copy.axes if a.axis == end):
      x = named[axis.name]
      x = x if copy.expert is None else x[copy.expert]
      x = x if end == -1 else x.swapaxes(-1, -2)
      x = x[..., axis.first : axis.first + layer.width]
      total = total + x.sum(axis=tuple(range(x.ndim - 1)))
    rows.append(total)
  return rows


def _layers(
  model: Any, params: PyTree, batch: Batch, chosen: leaves.Choice
) -> list[units.Layer]:
  rows = jax.tree.map(lambda x: x[:64], batch.features)
  layers = unit_search.find(model, params, rows)
  found = [layer for layer in layers if chosen(layer.name)]
  if not found:
    raise ValueError(
      f'{type(model).__name__} has no layer to prune among those that are '
      f'chosen; found {[layer.name for layer in layers]}'
    )
  return found


def _choose(
  layers: list[units.Layer], scores: dict[str, np.ndarray], share: float
) -> dict[str, np.ndarray]:
  """Returns the units that stay.

  Each copy of a layer loses its own least important units, equally many.
  """
  ranked = sorted(
    (cost, i)
    for i, layer in enumerate(layers)
    for cost in np.sort(scores[layer.name], axis=1).mean(axis=0)[:-1]
  )
  count = max(1, round(share * sum(layer.width for layer in layers)))
  gone = np.bincount(
    [i for _, i in ranked[:count]], minlength=len(layers)
  ).astype(int)
  if count > len(ranked):
    most = len(ranked) / sum(layer.width for layer in layers)
    raise ValueError(
      f'a share of {share} leaves a layer without units: take at most '
      f'{np.floor(most * 1000) / 1000}'
    )
  return {
    layer.name: np.sort(
      np.argsort(scores[layer.name], axis=1, kind='stable')[:, n:], axis=1
    )
    for layer, n in zip(layers, gone, strict=True)
  }


def _predict(model: Any, params: PyTree, features: PyTree) -> PyTree:
  return model.apply({'params': params}, features)[0]


def _check_equal(masked: PyTree, pruned: PyTree) -> None:
  pairs = zip(jax.tree.leaves(masked), jax.tree.leaves(pruned), strict=True)
  if not all(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs):
    raise ValueError(
      'units cannot be removed here: the model without them differs from the '
      'one in which they put out 0. Activations must be 0 at 0, as relu, gelu, '
      'silu and tanh are'
    )
