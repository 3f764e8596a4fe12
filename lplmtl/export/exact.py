"""What exported C computes, to the bit, in NumPy.

`reader` leaves sums to BLAS and functions to NumPy, whose last digits differ
between processors. Here, as in `c_arithmetic`, sums have one order, no product
is fused with a sum, and functions are polynomials in float32, right to a few
units in the last place, by the coefficients of Cephes (Moshier, 1989).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl.export import reader
from lplmtl.export.program import Program

# The C library computes these, so that they have no bits of their own.
FROM_LIBRARY = frozenset({'power', 'sin', 'cos', 'erf'})

# Of polynomials, that of the highest power first.
POWER_OF_E = (
  1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
  1.6666665459e-1, 5.0000001201e-1,
)  # fmt: skip
LOGARITHM = (
  7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1,
  1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
  3.3333331174e-1,
)  # fmt: skip
TANGENT = (
  -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1,
  -3.33332819422e-1,
)  # fmt: skip
# log(2) as a sum. The first part has 9 bits: whole numbers of it stay exact.
LOG_OF_2 = (0.693359375, -2.12194440e-4)
# e^x is 0 below, where products with it would be slow, and infinite above.
LEAST, MOST = -86.0, 89.0
_FLOAT = np.float32


def is_exact(program: Program) -> bool:
  """Returns whether C has the bits of `predict`, whatever its library."""
  return FROM_LIBRARY.isdisjoint(node.kind for node in program.operations)


def predict(data: Mapping[str, Any], columns: Any) -> dict[str, np.ndarray]:
  """Returns what the C does for raw rows: `{task: [N, K] float32}`.

  Args:
    data: from `numpy_form.to_data`.
    columns: see `reader.predict`.

  Raises:
    ValueError: a row cannot be read.
  """
  if data['encoding']:
    columns = reader.encode(data['encoding'], columns)
  return reader.run(dict(data), columns, OPS)


def _matmul(x: Any, y: Any) -> Any:
  """Four products are added, then their sum to those before."""

  def times(i: int) -> Any:
    return x[..., i, None] * y[..., None, i, :]

  total, end = _FLOAT(0), x.shape[-1] // 4 * 4
  for i in range(0, end, 4):
    four = times(i) + times(i + 1) + times(i + 2) + times(i + 3)
    total = total + four
  for i in range(end, x.shape[-1]):
    total = total + times(i)
  return total


def _in_order(operation: Any) -> Any:
  def reduce(x: Any, axis: Sequence[int]) -> Any:
    x = np.moveaxis(x, axis, range(-len(axis), 0))
    x = x.reshape(*x.shape[: -len(axis)], -1)
    return operation.accumulate(x, axis=-1, dtype=x.dtype)[..., -1]

  return reduce


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
  total = _FLOAT(coefficients[0])
  for coefficient in coefficients[1:]:
    total = total * x + _FLOAT(coefficient)
  return total


def _power_of_e(given: Any) -> Any:
  """As 2^n e^r, with n whole and r small."""
  least, (high, low) = _FLOAT(LEAST), map(_FLOAT, LOG_OF_2)
  x = np.clip(given, least, _FLOAT(MOST))
  n = (x * _FLOAT(1.442695) + _FLOAT(151.5)).astype(np.int32) - np.int32(151)
  whole = n.astype(_FLOAT)
  r = x - whole * high - whole * low
  found = np.ldexp(_polynomial(r, POWER_OF_E) * r * r + r + _FLOAT(1), n)
  return np.where(given < least, _FLOAT(0), found)


def _logarithm(x: Any) -> Any:
  """As n log(2) + log(m), with n whole and m close to 1."""
  m, n = np.frexp(x)
  is_small = m < _FLOAT(0.707106781)
  m = np.where(is_small, m + m, m) - _FLOAT(1)
  n = (n - is_small).astype(_FLOAT)
  z = m * m
  high, low = map(_FLOAT, LOG_OF_2)
  rest = _polynomial(m, LOGARITHM) * m * z + n * low - _FLOAT(0.5) * z
  found = np.where(x < np.inf, m + rest + n * high, x)
  return np.where(
    x > 0, found, np.where(x == 0, _FLOAT(-np.inf), _FLOAT(np.nan))
  )


def _tangent(x: Any) -> Any:
  z = x * x
  near = x + x * z * _polynomial(z, TANGENT)
  far = _FLOAT(1) - _FLOAT(2) / (_power_of_e(_FLOAT(2) * np.abs(x)) + _FLOAT(1))
  return np.where(z < _FLOAT(0.390625), near, np.where(x < 0, -far, far))


def _power_less_1(x: Any) -> Any:
  t = _tangent(_FLOAT(0.5) * x)
  near = _FLOAT(2) * t / (_FLOAT(1) - t)
  return np.where(np.abs(x) < _FLOAT(0.5), near, _power_of_e(x) - _FLOAT(1))


def _logarithm_of_1_more(x: Any) -> Any:
  """Kahan's: what 1 + x loses is lost alike in both factors."""
  u = _FLOAT(1) + x
  found = _logarithm(u) * (x / (u - _FLOAT(1)))
  return np.where(u == _FLOAT(1), x, np.where(u == x, _logarithm(u), found))


OPS: dict[str, Any] = reader.OPS | {
  'matmul': _matmul,
  'sum': _in_order(np.add),
  'prod': _in_order(np.multiply),
  'exp': _power_of_e,
  'log': _logarithm,
  'tanh': _tangent,
  'expm1': _power_less_1,
  'log1p': _logarithm_of_1_more,
  'logistic': lambda x: _FLOAT(1) / (_FLOAT(1) + _power_of_e(-x)),
}
