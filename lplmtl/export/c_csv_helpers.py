"""Small C99 functions that read the fields of a CSV line."""

from collections.abc import Sequence

from lplmtl.export import c_helpers, c_text


def of(name: str, missing: Sequence[str], is_packed: bool) -> dict[str, str]:
  """Returns the functions; later ones call earlier ones.

  Args:
    name: the beginning of all public names.
    missing: texts that stand for a missing value, beside the usual ones.
    is_packed: whether rows are those of `c_packed`, whose numbers are `float`.
      Their reader is small: what does not begin like a number is missing to
      it, and it reads no exponents.
  """
  if is_packed:
    return {'cut': _CUT, 'read_number': _READ_NUMBER_SMALL}
  tests = ''.join(
    f' ||\n         bytes_from(text, n, {c_text.string(text)}) == 0'
    for text in sorted(missing)
  )
  integer_of = _INTEGER_OF.replace('MISSING', f'{name.upper()}_MISSING')
  return {
    'bytes_from': c_helpers.ROWS['bytes_from'],
    'canonical': c_helpers.ROWS['canonical'],
    'is_missing': _IS_MISSING.replace(' OTHERS', tests),
    'cut': _CUT,
    'read_number': _READ_NUMBER,
    'integer_of': integer_of,
  }


_CUT = """
/* Cuts the first field off a line, without quotes as RFC 4180 has them, and
   without spaces before it. Returns the rest; 0 if there is none. */
static char *cut(char *line, char **field) {
  char *to, c;
  int quoted = 0;
  while (*line == ' ') line++;
  for (*field = line; *line > ','; line++) { /* letters and digits need less */
  }
  for (to = line; (c = *line) != 0; line++) {
    if (c <= ',') {
      if (c == '"') {
        quoted = !quoted;
        if (quoted || line[1] != '"') continue; /* two of them are one */
      } else if (!quoted && (c == ',' || c == '\\n' || c == '\\r')) {
        break;
      }
    }
    *to++ = c;
  }
  *to = 0;
  return c == ',' ? line + 1 : 0;
}
"""
_READ_NUMBER_SMALL = """
/* Reads a number such as -12.5, of which seven digits are exact. It is missing
   if it does not begin like one. Returns 0 unless it ends otherwise. */
static int read_number(const char *text, float *number) {
  const char *digits = text + (*text == '-'), *end;
  float x = 0, scale = 1;
  int has_point = 0;
  for (end = digits;; end++) {
    const int digit = *end - '0';
    if (*end == '.' && !has_point) {
      has_point = 1;
    } else if (digit < 0 || digit > 9) {
      break;
    } else if (!has_point || x < 16777216) { /* further ones do not matter */
      x = 10 * x + (float)digit;
      if (has_point) scale *= 10;
    }
  }
  x /= scale;
  digits += has_point;
  *number = end == digits ? 0.0f / 0.0f : *text == '-' ? -x : x;
  return end != digits && *end;
}
"""
_IS_MISSING = """
static int is_missing(const char *text, int n) {
  return bytes_from(text, n, "nan") == 0 OTHERS;
}
"""
_READ_NUMBER = """
/* Reads a number such as -12.5e-3, of which 15 digits are exact. Returns 0
   unless it is something else. */
static int read_number(const char *text, double *number) {
  double x = 0, scale = 0;
  int n, is_negative, digits = 0, exponent = 0;
  text = canonical(text, &n);
  *number = NAN;
  if (is_missing(text, n)) return 0;
  is_negative = *text == '-';
  if (is_negative || *text == '+') text++;
  for (; *text; text++) {
    const int digit = *text - '0';
    if (*text == '.' && scale == 0) {
      scale = 1;
    } else if (digit < 0 || digit > 9) {
      break;
    } else {
      digits = 1;
      if (scale == 0 || x < 9e14) { /* more would not fit */
        x = 10 * x + digit;
        scale *= 10;
      }
    }
  }
  if (digits && (*text == 'e' || *text == 'E')) {
    const int down = *++text == '-';
    if (down || *text == '+') text++;
    for (digits = 0; *text >= '0' && *text <= '9'; text++, digits = 1)
      if (exponent < 999) exponent = 10 * exponent + *text - '0';
    if (down) exponent = -exponent;
  }
  if (scale == 0) scale = 1;
  for (; exponent > 0; exponent--) x *= 10;
  for (; exponent < 0; exponent++) scale *= 10;
  *number = (is_negative ? -x : x) / scale;
  while (is_blank(*text)) text++;
  return !digits || *text;
}
"""
_INTEGER_OF = """
/* A category that is a whole number; 2147483647, which no category is, for
   other texts. */
static int32_t integer_of(const char *text) {
  int32_t found = 0;
  int n, i, is_negative;
  text = canonical(text, &n);
  if (is_missing(text, n)) return MISSING;
  is_negative = *text == '-';
  for (i = is_negative; i < n; i++) {
    if (text[i] < '0' || text[i] > '9' || n - is_negative > 9)
      return 2147483647;
    found = 10 * found + text[i] - '0';
  }
  if (i == is_negative || (text[is_negative] == '0' && n > 1))
    return 2147483647;
  return is_negative ? -found : found;
}
"""
