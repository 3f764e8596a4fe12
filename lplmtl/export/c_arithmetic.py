"""Small C99 functions of arithmetic, of which a program gets those it calls.

They have the bits of `exact`, where the equations are: floats are added in the
same order, and only the operations that IEEE 754 defines to the bit are used.
"""

from collections.abc import Sequence

from lplmtl.export import c_text, exact


def _number(value: float) -> str:
  return c_text.number(value, 'float32')


def _polynomial(x: str, coefficients: Sequence[float]) -> str:
  """Returns the expression of a polynomial, a line for each coefficient."""
  first, *others = map(_number, coefficients)
  text = first
  for one in others:
    sign, size = ('-', one[1:]) if one.startswith('-') else ('+', one)
    text = f'({text}) * {x}\n        {sign} {size}'
  return text


_HIGH, _LOW = map(_number, exact.LOG_OF_2)
_LEAST, _MOST = map(_number, (exact.LEAST, exact.MOST))

_PRODUCT = """
/* y[m][n] = x[m][k] w[k][n]; four rows of w at a time spare loads and stores */
static void %s(const float *restrict x, const %s *restrict w,
               float *restrict y, int m, int k, int n) {
  int a, b, c;
  for (a = 0; a < m; a++, x += k, y += n) {
    const %s *row = w;
    for (c = 0; c < n; c++) y[c] = 0.0f;
    for (b = 0; b + 4 <= k; b += 4, row += 4 * n)
      for (c = 0; c < n; c++)
        y[c] += x[b] * row[c] + x[b + 1] * row[n + c] +
                x[b + 2] * row[2 * n + c] + x[b + 3] * row[3 * n + c];
    for (; b < k; b++, row += n)
      for (c = 0; c < n; c++) y[c] += x[b] * row[c];
  }
}
"""

# Later ones call earlier ones.
HELPERS = {
  'power_of_e': f"""
/* e^x is 2^n e^r, with n whole and r small. */
static float power_of_e(float given) {{
  union {{
    uint32_t bits;
    float number;
  }} half;
  const float above = given >= {_LEAST} ? given : {_LEAST};
  const float x = above < {_MOST} ? above : {_MOST};
  const int32_t n = (int32_t)(x * 1.442695f + 151.5f) - 151;
  const float r = x - (float)n * {_HIGH} - (float)n * {_LOW};
  const float y = ({_polynomial('r', exact.POWER_OF_E)}) * r * r + r + 1.0f;
  half.bits = (uint32_t)(n + 126) << 23; /* of 2^n, which may be no float */
  return given >= {_LEAST} ? y * 2.0f * half.number
                           : given < {_LEAST} ? 0.0f : given;
}}
""",
  'logarithm': f"""
/* log(x) is n log(2) + log(m), with n whole and m close to 1. */
static float logarithm(float x) {{
  union {{
    uint32_t bits;
    float number;
  }} m;
  int32_t n = -126;
  float y, z;
  if (!(x > 0.0f)) return x == 0.0f ? -INFINITY : NAN;
  if (!(x < INFINITY)) return x;
  if (x < 1.17549435e-38f) {{
    x *= 8388608.0f; /* 2^23 */
    n -= 23;
  }}
  m.number = x;
  n += (int32_t)(m.bits >> 23);
  m.bits = (m.bits & 0x7fffff) | 0x3f000000;
  y = m.number;
  if (y < 0.707106781f) {{
    y += y;
    n--;
  }}
  y -= 1.0f;
  z = y * y;
  return y + (({_polynomial('y', exact.LOGARITHM)}) * y * z +
              (float)n * {_LOW} - 0.5f * z) + (float)n * {_HIGH};
}}
""",
  'tangent': f"""
/* tanh(x) */
static float tangent(float x) {{
  const float z = x * x;
  float far;
  if (z < 0.390625f)
    return x + x * z * ({_polynomial('z', exact.TANGENT)});
  far = 1.0f - 2.0f / (power_of_e(2.0f * (x < 0.0f ? -x : x)) + 1.0f);
  return x < 0.0f ? -far : far;
}}
""",
  'power_less_1': """
/* e^x - 1 */
static float power_less_1(float x) {
  const float t = tangent(0.5f * x);
  if (-0.5f < x && x < 0.5f) return 2.0f * t / (1.0f - t);
  return power_of_e(x) - 1.0f;
}
""",
  'logarithm_of_1_more': """
/* log(1 + x): what 1 + x loses is lost alike in both factors. */
static float logarithm_of_1_more(float x) {
  const float u = 1.0f + x;
  if (u == 1.0f) return x;
  return u == x ? logarithm(u) : logarithm(u) * (x / (u - 1.0f));
}
""",
  'logistic': """
static float logistic(float x) { return 1.0f / (1.0f + power_of_e(-x)); }
""",
  'sign': """
static float sign(float x) { return (float)((x > 0.0f) - (x < 0.0f)); }
""",
  'larger': """
static float larger(float a, float b) { return a < b ? b : a; }
""",
  'smaller': """
static float smaller(float a, float b) { return b < a ? b : a; }
""",
  'larger_integer': """
static int32_t larger_integer(int32_t a, int32_t b) { return a > b ? a : b; }
""",
  'smaller_integer': """
static int32_t smaller_integer(int32_t a, int32_t b) { return a < b ? a : b; }
""",
  'of_float16': """
/* A normal float16, or zero: its exponent counts from another number. */
static float of_float16(uint16_t bits) {
  union {
    uint32_t bits;
    float number;
  } found;
  found.bits = (bits & 0x8000u) << 16 | (bits & 0x7fffu) << 13;
  return found.number * 5.19229686e33f; /* 2^112 */
}
""",
  'run_at': """
/* The run of equal numbers that a place lies in. */
static int run_at(int32_t place, const uint16_t *ends, int count) {
  int low = 0, high = count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (place < ends[middle])
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}
""",
  'product': _PRODUCT % ('product', 'float', 'float'),
  'product_of_codes': _PRODUCT % ('product_of_codes', 'int8_t', 'int8_t'),
  'half_at': """
/* w[row][column] of codes of 4 bits: a byte has those of two rows */
static int half_at(const uint8_t *w, int row, int column, int n) {
  return (w[row / 2 * n + column] >> row % 2 * 4 & 15) - 7;
}
""",
  'product_of_halves': """
/* y[m][n] = x[m][k] w[k][n] of codes of 4 bits, two rows a byte */
static void product_of_halves(const float *restrict x,
                              const uint8_t *restrict w, float *restrict y,
                              int m, int k, int n) {
  int a, b, c;
  for (a = 0; a < m; a++, x += k, y += n) {
    const uint8_t *row = w;
    for (c = 0; c < n; c++) y[c] = 0.0f;
    for (b = 0; b + 4 <= k; b += 4, row += 2 * n)
      for (c = 0; c < n; c++)
        y[c] += x[b] * ((row[c] & 15) - 7) + x[b + 1] * ((row[c] >> 4) - 7) +
                x[b + 2] * ((row[n + c] & 15) - 7) +
                x[b + 3] * ((row[n + c] >> 4) - 7);
    for (; b < k; b++)
      for (c = 0; c < n; c++) y[c] += x[b] * half_at(w, b, c, n);
  }
}
""",
}
