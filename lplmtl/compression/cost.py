"""The cost of a model: parameters, bytes, operations and memory."""

import math
from collections.abc import Callable
from typing import Any

import jax

from lplmtl.compression.activations import peak_activations as peak_activations
from lplmtl.compression.activations import programs
from lplmtl.compression.device_bytes import count_bytes as count_bytes
from lplmtl.types import PyTree

# One operation per output element. Comparisons and selections count, too: a
# relu is one `max`.
_ELEMENTWISE = frozenset(
  """
  abs acos acosh add add_any asin asinh atan atan2 atanh cbrt ceil clamp cos
  cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt
  integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg
  nextafter pow rem round rsqrt select_n sign sin sinh sqrt square sub tan tanh
  and or xor not
  """.split()
)
# One operation per input element that is folded into another one.
_REDUCTIONS = frozenset(
  """
  reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor
  argmax argmin cumsum cumprod cummax cummin cumlogsumexp
  """.split()
)
# No operations: these move, rename or create data.
_FREE = frozenset(
  """
  bitcast_convert_type broadcast_in_dim concatenate convert_element_type copy
  copy_p device_put dynamic_slice dynamic_update_slice gather iota
  optimization_barrier pad random_bits random_fold_in random_seed random_split
  random_unwrap random_wrap reduce_precision reshape rev scatter
  sharding_constraint shift_left shift_right_logical shift_right_arithmetic
  slice sort split stack unstack squeeze stop_gradient threefry2x32 transpose
  """.split()
)

_CONTRACTIONS = ('dot_general', 'conv_general_dilated')
# Returns the count of one equation; None if it contains a program.
_Own = Callable[[Any], int | None]


def count_parameters(params: PyTree) -> int:
  """Returns the number of scalars in a pytree of parameters.

  Example:
    >>> import jax.numpy as jnp
    >>> count_parameters({'kernel': jnp.ones((8, 4)), 'bias': jnp.ones(4)})
    36
  """
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def count_flops(fn: Callable[..., Any], *args: Any) -> int:
  """Counts the floating-point operations of one call in its traced program.

  A multiply-add counts as 2. Contractions and convolutions are counted exactly;
  an elementwise operation (even a transcendental function) counts as 1 per
  output element, a reduction as 1 per element folded in, and moving data
  (embedding gathers, concatenations, casts) as 0. The count is that of the
  program as written, before the compiler fuses or removes anything, so it does
  not depend on the machine or the version of the compiler.

  Args:
    fn: a function that JAX can trace.
    *args: its arguments; arrays or `jax.ShapeDtypeStruct`s.

  Returns:
    The count, without operations that no result depends on. Pass one row for
    the cost of a model per row.

  Raises:
    NotImplementedError: the program has a primitive of unknown cost, or a
      `while` loop, whose number of iterations is unknown.

  Example:
    >>> import jax.numpy as jnp
    >>> count_flops(lambda x, w: x @ w, jnp.ones((1, 8)), jnp.ones((8, 4)))
    64
  """
  return _count(jax.make_jaxpr(fn)(*args).jaxpr, _flops)


def multiply_adds(fn: Callable[..., Any], *args: Any) -> int:
  """Counts the multiply-adds of the products and convolutions in one call.

  What an embedded processor is measured by. Elementwise operations, among them
  the D products of a feature cross, are left out: `count_flops` has them.
  Takes the arguments of `count_flops` and raises the same errors.

  Example:
    >>> import jax.numpy as jnp
    >>> multiply_adds(lambda x, w: x @ w, jnp.ones((1, 8)), jnp.ones((8, 4)))
    32
  """
  return _count(jax.make_jaxpr(fn)(*args).jaxpr, _products_only)


def matrix_products(
  fn: Callable[..., Any], *args: Any
) -> list[tuple[int, int, int]]:
  """Lists `(m, k, n)` of every product `[m, k] [k, n]` in a traced program.

  Products with batch axes, or of other ranks, are left out.

  Args:
    fn: a function that JAX can trace.
    *args: its arguments; arrays or `jax.ShapeDtypeStruct`s.
  """
  return _products(jax.make_jaxpr(fn)(*args).jaxpr)


def _products(jaxpr: Any) -> list[tuple[int, int, int]]:
  sizes = []
  for equation in live(jaxpr):
    if equation.primitive.name == 'dot_general':
      (contracting, _), (batch, _) = equation.params['dimension_numbers']
      left, right = (v.aval.shape for v in equation.invars)
      if len(left) == len(right) == 2 and len(contracting) == 1 and not batch:
        (m, n), k = equation.outvars[0].aval.shape, left[contracting[0]]
        sizes.append((m, k, n))
    for inner in programs(equation.params):
      sizes += _products(inner)
  return sizes


def _count(jaxpr: Any, own: _Own) -> int:
  return sum(_count_equation(equation, own) for equation in live(jaxpr))


def live(jaxpr: Any) -> list[Any]:
  """Returns the equations that the results depend on."""
  needed = {id(v) for v in jaxpr.outvars}
  kept = []
  for equation in reversed(jaxpr.eqns):
    if any(id(v) in needed for v in equation.outvars):
      kept.append(equation)
      needed |= {id(v) for v in equation.invars}
  return kept[::-1]


def _count_equation(equation: Any, own: _Own) -> int:
  name, count = equation.primitive.name, own(equation)
  if count is not None:
    return count
  if name == 'while':
    raise NotImplementedError(
      'cannot count the FLOPs of a while loop, whose number of iterations is '
      'unknown: use lax.scan, or fori_loop with fixed bounds'
    )
  inner = programs(equation.params)
  if not inner:
    raise NotImplementedError(
      f'cannot count the FLOPs of the primitive {name!r}'
    )
  if name == 'cond':
    return max(_count(branch, own) for branch in inner)
  length = equation.params.get('length', 1)
  return length * sum(_count(one, own) for one in inner)


def _flops(equation: Any) -> int | None:
  """Returns the FLOPs of one operation; None for programs and unknown ones."""
  name = equation.primitive.name
  outputs = sum(_size(v) for v in equation.outvars)
  inputs = sum(_size(v) for v in equation.invars)
  if name in _CONTRACTIONS:
    return 2 * _multiply_adds(equation)
  if name in _ELEMENTWISE:
    return outputs
  if name in _REDUCTIONS:
    return inputs if name.startswith('cum') else inputs - outputs
  if name in _FREE:
    return 0
  if name in ('scatter-add', 'scatter_add'):
    return _size(equation.invars[2])
  return None


def _products_only(equation: Any) -> int | None:
  if equation.primitive.name in _CONTRACTIONS:
    return _multiply_adds(equation)
  return None if _flops(equation) is None else 0


def _multiply_adds(equation: Any) -> int:
  outputs = _size(equation.outvars[0])
  if equation.primitive.name == 'dot_general':
    (contracting, _), _ = equation.params['dimension_numbers']
    left = equation.invars[0].aval.shape
    return outputs * math.prod(left[axis] for axis in contracting)
  kernel = equation.invars[1].aval.shape
  numbers = equation.params['dimension_numbers']
  # rhs_spec: output features, input features per group, spatial axes. Padding
  # counts like data.
  return outputs * math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])


def _size(variable: Any) -> int:
  return math.prod(variable.aval.shape)
