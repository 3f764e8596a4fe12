"""Few bits per parameter: models that train rounded, and integers to keep.

A quantised array is `codes * scale`, whole numbers times a scale that a group
of them shares. 2 bits are the three codes -1, 0 and 1; b bits are those from
-(2^(b-1) - 1) to 2^(b-1) - 1, so that zero is a code and no sign is favoured.

    model = Quantized(lplmtl.SharedBottom(tasks, encoder), Scheme(bits=4))
    result = lplmtl.fit(key, model, optimizer, balancer, data)
    frozen = freeze(model, result.params)      # what a device stores
    lplmtl.predict(model.model, thaw(frozen), features)

Score what was frozen: near a tie, a program compiled in another way may round
to the other side.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.compression import bits, leaves, plans, programs, wrapping
from lplmtl.compression.integers import Integers
from lplmtl.compression.plans import Plan, Scheme
from lplmtl.types import Array, PyTree

# Exponent and mantissa of the floats of each size. The one of 8 bits has no
# sign: it is the upper half of a float16's bits, shifted by the sign.
_FORMATS = {8: (5, 3), 16: (5, 10)}
# With eight fractions from 1 to .3, ternary nets on census66k are no better.
_FRACTIONS = (1, 0.8, 0.6, 0.4)
_FOUR_BITS = Scheme()
# The smallest normal float16, and the largest float of 8 bits.
_LEAST, _MOST = 2.0**-14, 61440.0


@dataclasses.dataclass(frozen=True)
class Quantized(wrapping.Wrapped):
  """A model that computes with rounded parameters, and trains through that.

  Its parameters are those of the model inside, float32 ("shadows"). `apply`
  rounds them first and computes with `codes * scale`, exactly what a device
  has, while gradients pass as if nothing had been rounded (straight-through,
  Bengio et al. 2013), so that small steps add up until a code changes. No
  gradient is cut off: the scales follow the parameters at every step, so that
  none stays out of range.

  Attributes:
    model: any model (see `lplmtl.types.Model`).
    scheme: see Scheme.

  References:
    Bengio et al. 2013, "Estimating or Propagating Gradients Through Stochastic
    Neurons for Conditional Computation".

  Example:
    >>> import lplmtl
    >>> from lplmtl import data, tasks
    >>> todo, rows = (tasks.binary('click'),), data.clicks(4)
    >>> model = Quantized(lplmtl.SharedBottom(todo), Scheme(bits=2))
    >>> params = jax.jit(model.init)(jax.random.key(0), rows.features)['params']
    >>> frozen = freeze(model, params)
    >>> np.unique(frozen['bottom']['layer_0']['kernel'].codes).tolist()
    [-1, 0, 1]
  """

  scheme: Scheme = _FOUR_BITS

  def __post_init__(self) -> None:
    if isinstance(self.model, type) or not hasattr(self.model, 'apply'):
      raise ValueError(
        'expected a model to quantise, such as lplmtl.PLE(tasks); found '
        f'{getattr(self.model, "__name__", type(self.model).__name__)}'
      )
    if not isinstance(self.scheme, Scheme):
      raise ValueError(
        'scheme must be a Scheme, such as Scheme(bits=4); found '
        f'{self.scheme!r}'
      )

  def weights(self, params: PyTree) -> PyTree:
    """Returns the rounded parameters; gradients pass to `params` unchanged.

    Raises:
      ValueError: there are no matrices to quantise, `keep` names nothing, or
        the embeddings are those of another encoder.
    """
    return _map(self, params, _straight_through)


def freeze(model: Quantized, params: PyTree) -> PyTree:
  """Rounds parameters once and for all.

  Args:
    model: says how; to round a model after training, wrap it now.
    params: parameters of one seed.

  Returns:
    A pytree like the parameters, with Integers in place of quantised arrays,
    and NumPy arrays in float32 or float16 in place of the others.

  Raises:
    ValueError: `model` is not Quantized, a parameter is not finite, or the
      parameters are those of another model.
  """
  if not isinstance(model, Quantized):
    raise ValueError(
      'expected a model and how to round it, Quantized(model, Scheme(bits=4)); '
      f'found {type(model).__name__}'
    )
  _checks.check_call(model, params)
  for name, leaf in leaves.names(params).items():
    if not np.isfinite(leaf).all():
      raise ValueError(f'cannot round parameters that are not finite: {name}')

  rounded = programs.of(_all_rounded, model)(params)
  # A pair takes the place of each leaf.
  return jax.tree.map(
    lambda plan, _, pair: _stored(plan, jax.device_get(pair)),
    plans.make(model.model, model.scheme, params),
    params,
    rounded,
  )


def settle(model: Quantized, params: PyTree) -> PyTree:
  """Returns parameters that `freeze` rounds alike in every program.

  Training with rounding ends with some parameters at a tie: a step across it
  changes the code, and the next one leads back. How a tie is rounded depends on
  the program. So all parameters move to what they are rounded to, but for the
  largest of a group, which its scale follows.

  Args:
    model: says how they are rounded.
    params: parameters of one seed.

  Returns:
    NumPy arrays, float32.
  """
  return jax.device_get(programs.of(_all_settled, model)(params))


def _all_settled(model: Quantized, params: PyTree) -> PyTree:
  return _map(model, params, _settled)


def _settled(x: Array, plan: Plan) -> Array:
  values, scale = _rounded(x, plan)
  if scale is None:
    return values
  values = values * _spread(scale, plan.sizes)
  if plan.bits == 2:  # the scale, which may be smaller than the largest number
    return values
  groups = _by_column(jnp.abs(x), plan.sizes)
  largest = groups.max(axis=plan.axes, keepdims=True)
  largest = _spread(largest[:, 0] if plan.sizes else largest, plan.sizes)
  within = jnp.clip(values, -largest, largest)
  return jnp.where(jnp.abs(x) == largest, x, within)


def _all_rounded(model: Quantized, params: PyTree) -> PyTree:
  return _map(model, params, _rounded)


def _stored(plan: Plan, pair: tuple[Any, Any]) -> np.ndarray | Integers:
  values, scale = pair
  if scale is None:
    return values.astype(np.float16 if plan.bits == 16 else np.float32)
  codes = values.astype(np.int8)
  return Integers(codes, scale, plan.bits, plan.scale_bits, plan.sizes)


def thaw(frozen: PyTree) -> PyTree:
  """Returns ordinary float32 parameters from what `freeze` returned."""
  return jax.tree.map(
    lambda leaf: (
      leaf.values()
      if isinstance(leaf, Integers)
      else np.asarray(leaf, np.float32)
    ),
    frozen,
  )


def as_float16(params: PyTree) -> PyTree:
  """Returns parameters as float16: half the bytes, 11 significant bits.

  Raises:
    ValueError: a number is beyond 65,504, the largest of float16.
  """
  return _cast(params, np.dtype(np.float16))


def as_bfloat16(params: PyTree) -> PyTree:
  """Returns parameters as bfloat16: half the bytes, 8 significant bits.

  For numbers that float16 cannot hold; otherwise its 11 bits are better.

  Example:
    >>> as_bfloat16({'scale': np.float32([1e30])})['scale'].dtype
    dtype(bfloat16)
  """
  return _cast(params, np.dtype(jnp.bfloat16))


def _cast(params: PyTree, dtype: np.dtype[Any]) -> PyTree:
  _checks.check_params(params)

  def cast(name: str, leaf: Any) -> np.ndarray:
    with np.errstate(over='ignore'):
      found = np.asarray(leaf).astype(dtype)
    if not np.isfinite(found.astype(np.float32)).all():
      raise ValueError(f'{name} has numbers that {dtype.name} cannot hold')
    return found

  return leaves.map_named(cast, params)


def _map(model: Quantized, params: PyTree, function: Any) -> PyTree:
  return jax.tree.map(
    function, params, plans.make(model.model, model.scheme, params)
  )


def _straight_through(x: Array, plan: Plan) -> Array:
  values, scale = _rounded(jax.lax.stop_gradient(x), plan)
  if scale is not None:
    values = values * _spread(scale, plan.sizes)
  # The difference is 0 whatever x is, and its gradient is 1.
  return values + (x - jax.lax.stop_gradient(x))


def _rounded(x: Array, plan: Plan) -> tuple[Array, Array | None]:
  """Returns codes, as floats, and their scale; or rounded floats, and None."""
  if plan.bits == 32:
    return x, None
  if plan.bits == 16:
    return jax.lax.reduce_precision(x, *_FORMATS[16]), None
  most = bits.max_code(plan.bits)
  scale = _scale(x, plan, most)
  return _codes(x, _spread(scale, plan.sizes), most), scale


def _scale(x: Array, plan: Plan, most: int) -> Array:
  """Returns the scales: the largest numbers over the largest code.

  The few codes of ternary numbers are spent better if the largest numbers are
  clipped: the fraction of the largest is the one with the least squared error.
  """
  x = _by_column(x, plan.sizes)
  largest = jnp.abs(x).max(axis=plan.axes, keepdims=True)
  # Products: divisions by constants are compiled in more than one way.
  scales = [
    _round_scale(largest * np.float32(fraction / most), plan.scale_bits)
    for fraction in (_FRACTIONS if plan.bits == 2 else (1,))
  ]
  best = scales[0]
  if len(scales) > 1:
    rests = [x - _codes(x, scale, most) * scale for scale in scales]
    errors = [(rest**2).sum(axis=plan.axes, keepdims=True) for rest in rests]
    least = jnp.stack(errors).argmin(axis=0)[None]
    best = jnp.take_along_axis(jnp.stack(scales), least, axis=0)[0]
  return best[:, 0] if plan.sizes else best


def _codes(x: Array, scale: Array, most: int) -> Array:
  return jnp.clip(jnp.round(x / scale), -most, most)


def _round_scale(scale: Array, bits: int) -> Array:
  if bits < 32:
    scale = jax.lax.reduce_precision(scale, *_FORMATS[bits])
  return jnp.clip(scale, _LEAST, _MOST)


def _by_column(x: Array, sizes: tuple[int, ...]) -> Array:
  """Returns embeddings `[V, E]` as `[C, most, E]`, filled up with zeros."""
  if not sizes:
    return x
  starts = np.cumsum((0, *sizes[:-1]))
  places = np.arange(max(sizes))[None]
  rows = np.where(
    places < np.array(sizes)[:, None], starts[:, None] + places, len(x)
  )
  return jnp.take(x, rows, axis=0, mode='fill', fill_value=0)


def _spread(scale: Array, sizes: tuple[int, ...]) -> Array:
  """Returns scales that broadcast to the codes."""
  if not sizes:
    return scale
  return jnp.take(scale, np.repeat(np.arange(len(sizes)), sizes), axis=0)
