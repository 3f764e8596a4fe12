"""Turns a trained PLE into an SPLE: the top level loses its specific experts.

The one step here that knows two architectures by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.architectures import ple, sple
from lplmtl.compression import leaves, pools
from lplmtl.types import PyTree

_TOPS = ('concat', 'shared')
# Of the least squares, as a share of the variance of what the rows read: enough
# where units of relu experts are constant or copies of each other.
_RIDGE = 1e-3


def to_sple(
  model: Any,
  params: PyTree,
  *,
  top: Literal['concat', 'shared'] = 'concat',
  features: PyTree = None,
) -> tuple[sple.SPLE, PyTree]:
  """Removes the specific experts of a PLE's top level.

  With N levels, PLE computes `y_k = h_k(softmax(W_k g_{k,N-1}) [E_k ; E_s])`
  and SPLE does without E_k. Which of SPLE's forms:

  - `concat`: tower k reads `[g_{k,N-1} ; softmax(W_k g_{k,N-1}) E_s]`. The rows
    of its first matrix that read g_{k,N-1} are new. They are 0, so that this is
    exactly the PLE whose top gates have logits of minus infinity for E_k; in
    training they learn what E_k did. With `features`, they are instead the
    least squares estimate of it: A and b minimise the mean over the rows of

        |V (m_k - m'_k) - A g_{k,N-1} - b|^2 + .001 s |A|^2

    where m_k and m'_k are the mixtures with and without E_k, V is the tower's
    first matrix, b is added to its bias, and s is the mean variance of the
    entries of g_{k,N-1}. The towers then take over the linear part at once.
  - `shared`: the same function without those rows, exactly the masked PLE, with
    any experts and towers. The smallest, with nothing to replace E_k.

  `identity` is left out: its gate would hand g_{k,N-1} to a tower that has been
  trained on the outputs of the experts above.

  Args:
    model: a PLE.
    params: its trained parameters, of one seed.
    top: see above.
    features: calibration rows for `concat`, pytree of `[N, ...]`; a few
      thousand training rows. None for rows of 0.

  Returns:
    (model, params), to be fine-tuned by `fit(..., start=params)`.

  Raises:
    ValueError: the model is no PLE, the parameters are those of another model
      or of several seeds; or, for `concat`, experts or towers are not MLPs.
  """
  _checks.check_call(model, params)
  if type(model) is not ple.PLE:
    raise ValueError(
      f'expected a lplmtl.PLE to turn into an SPLE, found '
      f'{type(model).__name__}'
    )
  if top not in _TOPS:
    raise ValueError(f'top must be one of {_TOPS}, found {top!r}')
  levels = _sizes(model, params)
  kept = [dict(level) for level in pools.stored(model, params, levels)]
  kept[-1] |= {pool: () for pool in kept[-1] if pool != 'shared_experts'}
  pruned, new = pools.keep(model, params, levels, kept)
  small = sple.SPLE(
    model.tasks,
    model.encoder,
    model.levels,
    num_specific=pruned.num_specific[:-1],
    num_shared=pruned.num_shared[:-1],
    num_top=pruned.num_shared[-1],
    tower=model.tower,
    top=top,
    gate_body=model.gate_body,
  )
  if top == 'shared':
    return small, new
  width = _width(new[f'level_{len(levels) - 1}'])
  for task in model.tasks:
    first = _first_layer(new, task.name)
    new = leaves.replace(
      new, {f'{first}/kernel': lambda x: jnp.pad(x, ((width, 0), (0, 0)))}
    )
  if features is not None:
    new = _estimate((model, params), (small, new), features)
  return small, new


def _sizes(model: ple.PLE, params: PyTree) -> list[pools.Sizes]:
  """Returns the sizes of the pools of every gate, from the parameters."""
  levels: list[pools.Sizes] = []
  for i in range(len(model.levels)):
    scope = params.get(f'level_{i}', {})
    counts = {
      name: len(jax.tree.leaves(stack)[0])
      for name, stack in scope.items()
      if 'gate' not in name and jax.tree.leaves(stack)
    }
    if 'shared_experts' not in counts:
      raise ValueError(
        f'the parameters lack level_{i}/shared_experts: pass those of this PLE'
      )
    level = {
      task.name: {
        name: counts[name]
        for name in (f'specific_experts_{task.name}', 'shared_experts')
        if name in counts
      }
      for task in model.tasks
    }
    if i + 1 < len(model.levels):
      level['shared'] = counts
    levels.append(level)
  return levels


def _width(level: Mapping[str, Any]) -> int:
  """Returns the width of what the top level reads."""
  first = level['shared_experts'].get('layer_0', {}).get('kernel')
  if first is None:
    raise ValueError(
      "top='concat' needs experts that are MLPs with a layer at least, to know "
      "the width of their inputs: take top='shared'"
    )
  return first.shape[-2]


def _first_layer(params: PyTree, task: str) -> str:
  tower = f'tower_{task}'
  body = params.get(tower, {}).get('body', {})
  if body and 'kernel' not in body.get('layer_0', {}):
    raise ValueError(
      f"top='concat' needs towers that are MLPs, found one with {sorted(body)} "
      f"for task {task!r}: take top='shared'"
    )
  return f'{tower}/body/layer_0' if body else f'{tower}/head'


def _estimate(
  old: tuple[Any, PyTree], new: tuple[Any, PyTree], features: PyTree
) -> PyTree:
  """Sets the new rows to the least squares estimate of what was removed."""
  if not _checks.num_rows(features):
    raise ValueError('expected at least one row of features, found none')
  whole, mixed = (_tower_inputs(*pair, features) for pair in (old, new))
  params = new[1]
  for task in new[0].tasks:
    first = _first_layer(params, task.name)
    layer = params[f'tower_{task.name}']
    for name in first.split('/')[1:]:
      layer = layer[name]
    width = whole[task.name].shape[1]
    below, without = np.split(mixed[task.name], [-width], axis=1)
    missing = (whole[task.name] - without) @ np.float64(
      layer['kernel'][-width:]
    )
    rows, bias = _least_squares(below, missing)
    params = leaves.replace(params, {first: _filler(rows, bias)})
  return params


def _filler(rows: np.ndarray, bias: np.ndarray) -> Callable[[Any], Any]:
  """Returns a function that sets the first rows of a layer's kernel."""

  def fill(layer: Mapping[str, Any]) -> dict[str, Any]:
    kernel = layer['kernel'].at[: len(rows)].set(rows)
    return {'kernel': kernel, 'bias': layer['bias'] + np.float32(bias)}

  return fill


def _tower_inputs(
  model: Any, params: PyTree, features: PyTree
) -> dict[str, np.ndarray]:
  """Returns what each tower reads, `{task: [N, H]}` float64."""
  top = f'level_{len(model.levels) - 1}'

  def run(params: PyTree) -> Any:
    _, seen = model.apply(
      {'params': params},
      features,
      capture_intermediates=lambda module, _: module.name == top,
      mutable=['intermediates'],
    )
    return seen['intermediates'][top]['__call__'][0][0]

  return jax.tree.map(np.float64, jax.jit(run)(params))


def _least_squares(
  x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the `[D, K]` and `[K]` of the ridge regression y = x A + b."""
  centred, mean = x - x.mean(axis=0), y.mean(axis=0)
  moments = centred.T @ centred / len(x)
  penalty = _RIDGE * max(np.trace(moments) / len(moments), 1e-12)
  matrix = np.linalg.solve(
    moments + penalty * np.eye(len(moments)), centred.T @ (y - mean) / len(x)
  )
  return matrix, mean - x.mean(axis=0) @ matrix
