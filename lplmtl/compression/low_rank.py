"""Matrices as products of two narrow ones: after training, or during it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.compression import leaves, wrapping
from lplmtl.types import Array, PyTree

# `(('bottom/layer_0/kernel', 4), ...)`: names of matrices and their ranks.
Ranks = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class LowRank(wrapping.Wrapped):
  """A model some of whose matrices are products `W = D U` of rank R.

  A kernel `[D, H]` becomes `{'down': [D, R], 'up': [R, H]}`, the kernels of E
  experts, `[E, D, H]`, become `[E, D, R]` and `[E, R, H]`. The other parameters
  stay as they are. `init` splits what the inner model draws by its singular
  values, so that training starts near the same function (the spectral
  initialisation of Khodak et al. 2021).

  Saves memory and bytes, R (D + H) instead of D H numbers, but no operations by
  itself: `apply` multiplies the factors and evaluates the inner model. Code
  that multiplies by the factors one after the other saves both.

  Attributes:
    model: the model inside.
    ranks: names of matrices and their ranks, from `ranks` or `energy_ranks`.

  Example:
    >>> import jax, lplmtl
    >>> from lplmtl import tasks
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> small = LowRank(model, (('bottom/layer_0/kernel', 2),))
    >>> x = jnp.ones((1, 8))
    >>> params = jax.eval_shape(small.init, jax.random.key(0), x)['params']
    >>> {k: x.shape for k, x in params['bottom']['layer_0']['kernel'].items()}
    {'down': (8, 2), 'up': (2, 128)}

  References:
    Khodak et al. 2021, "Initialization and Regularization of Factorized Neural
    Layers".
  """

  ranks: Ranks = ()

  def weights(self, params: PyTree) -> PyTree:
    """Multiplies the factors.

    Raises:
      ValueError: the parameters are not those of this model.
    """
    return self._replace(params, lambda rank: _multiply)

  def split(self, params: PyTree) -> PyTree:
    """Splits matrices into factors: the best approximation of their rank."""
    return self._replace(params, lambda rank: lambda x: _factors(x, rank))

  def inner_path(self, path: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the path of the matrix that a factor belongs to."""
    split = dict(self.ranks)
    return path[:-1] if '/'.join(path[:-1]) in split else path

  def _replace(self, params: PyTree, make: Any) -> PyTree:
    try:
      return leaves.replace(params, {n: make(rank) for n, rank in self.ranks})
    except KeyError as error:
      raise ValueError(
        f'the parameters lack {error}, of which LowRank.ranks names a matrix: '
        'take the ranks from parameters of the same model'
      ) from error


def ranks(
  params: PyTree, rank: int, *, chosen: leaves.Choice = lambda name: True
) -> Ranks:
  """Gives one rank to every matrix that it makes smaller.

  Args:
    params: parameters or their shapes (`jax.eval_shape`), of one seed.
    rank: R >= 1.
    chosen: which matrices to consider, by name.

  Returns:
    The matrices `[D, H]` with `R (D + H) < D H`, in the order of the
    parameters.

  Raises:
    ValueError: R is below 1, or makes no matrix smaller.
  """
  if not _checks.is_whole_number(rank):
    raise ValueError(
      f'rank must be a whole number of at least 1, found {rank!r}'
    )
  matrices = _matrices(params, chosen)
  found = [(name, int(rank)) for name, x in matrices if _pays(x.shape, rank)]
  return _some(found, matrices, f'rank {rank}')


def energy_ranks(
  params: PyTree, energy: float, *, chosen: leaves.Choice = lambda name: True
) -> Ranks:
  """Gives every matrix the smallest rank that keeps a share of its energy.

  The energy of a matrix is the sum of its squared singular values; experts in
  one stack share a rank, by the sum over the stack. A matrix that would not
  become smaller stays whole.

  Args:
    params: trained parameters, of one seed.
    energy: the share to keep, in (0, 1].
    chosen: which matrices to consider, by name.

  Raises:
    ValueError: the share is out of range, or makes no matrix smaller.

  Example:
    >>> kernel = jnp.diag(jnp.array([10.0, 4, 2, 1]))  # squares: 121 in all
    >>> energy_ranks({'kernel': kernel}, 0.8)
    (('kernel', 1),)
  """
  if isinstance(energy, bool) or not 0 < energy <= 1:
    raise ValueError(f'energy must be above 0 and at most 1, found {energy!r}')
  matrices = _matrices(params, chosen)
  found = []
  for name, x in matrices:
    values = np.linalg.svd(np.asarray(x, np.float64), compute_uv=False)
    kept = np.cumsum((values.reshape(-1, values.shape[-1]) ** 2).sum(axis=0))
    rank = 1 + int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12)))
    if _pays(x.shape, rank):
      found.append((name, rank))
  return _some(found, matrices, f'energy {energy}')


def factorise(
  model: Any, params: PyTree, ranks: Ranks
) -> tuple[LowRank, PyTree]:
  """Splits trained matrices; returns a model and its parameters.

  The truncated singular value decomposition `W = P S Q`, with `P sqrt(S)` below
  and `sqrt(S) Q` above, is the best approximation of its rank. Fine-tune it by
  `fit(..., start=params)`.

  Raises:
    ValueError: `ranks` are not those of these parameters.
  """
  _checks.check_call(model, params)
  small = LowRank(model, tuple(ranks))
  return small, small.split(params)


def multiply(model: LowRank, params: PyTree) -> tuple[Any, PyTree]:
  """Undoes `factorise`: returns the inner model and whole matrices.

  For parts of the library that know the inner model only, such as
  `quantization.Quantized` and `packing`; the matrices keep their rank.

  Example:
    >>> import jax, lplmtl
    >>> from lplmtl import tasks
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> init = jax.jit(model.init)
    >>> params = init(jax.random.key(0), jnp.ones((1, 8)))['params']
    >>> small, factors = factorise(model, params, ranks(params, 2))
    >>> inner, whole = multiply(small, factors)
    >>> int(np.linalg.matrix_rank(whole['bottom']['layer_0']['kernel']))
    2
  """
  return model.model, model.weights(params)


def _matrices(params: PyTree, chosen: leaves.Choice) -> list[tuple[str, Any]]:
  _checks.check_params(params)
  return [
    (name, leaf)
    for name, leaf in leaves.names(params).items()
    if leaves.is_matrix(name, leaf) and chosen(name)
  ]


def _pays(shape: tuple[int, ...], rank: int) -> bool:
  height, width = shape[-2:]
  return rank * (height + width) < height * width


def _some(found: list[Any], matrices: list[Any], what: str) -> Ranks:
  if not found:
    shapes = {name: tuple(leaf.shape) for name, leaf in matrices}
    raise ValueError(
      f'{what} makes none of {len(shapes)} matrices smaller: take less; '
      f'found {shapes!s:.300}'
    )
  return tuple(found)


def _factors(matrix: Array, rank: int) -> dict[str, Array]:
  most = min(getattr(matrix, 'shape', (0,))[-2:])
  if not hasattr(matrix, 'shape') or not 1 <= rank <= most:
    found = getattr(matrix, 'shape', type(matrix).__name__)
    raise ValueError(
      f'a matrix split at rank {rank} must have at least as many rows and '
      f'columns, found {found}'
    )
  left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
  roots = jnp.sqrt(values[..., :rank])
  return {
    'down': left[..., :rank] * roots[..., None, :],
    'up': roots[..., :, None] * right[..., :rank, :],
  }


def _multiply(part: Any) -> Array:
  if not isinstance(part, Mapping) or set(part) != {'down', 'up'}:
    raise ValueError(
      "expected factors {'down', 'up'}, found a whole matrix: split the "
      'parameters by low_rank.factorise'
    )
  return part['down'] @ part['up']
