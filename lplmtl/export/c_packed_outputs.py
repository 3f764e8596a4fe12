"""From the logits of a packed model to predictions: C99, and the same in NumPy.

Without a mathematical library: e^x is the sum of its series, in one order, so
that both have the same bits.
"""

from collections.abc import Mapping

import numpy as np

from lplmtl import numeric
from lplmtl.export import c_text
from lplmtl.export.meanings import Meaning

# Of the series. With 64, the relative error is below 1e-5 up to e^30, beside
# which a probability is 1e-13; further out the sum is too small, but over 1e12.
# Expected counts go up to e^80.
_TERMS = 64
_TERMS_OF_COUNTS = 192
_MOST = np.float32(numeric.MAX_LOG_RATE)


def predict(
  logits: Mapping[str, np.ndarray], meanings: Mapping[str, Meaning]
) -> dict[str, np.ndarray]:
  """Returns `{task: [B, K] float32}` predictions, with the bits of the C.

  Args:
    logits: from `compression.reference.score`.
    meanings: of outputs; those of other tasks stay as they are.
  """
  terms = _terms(meanings)
  return {
    task: _predict(x, meanings[task], terms) if task in meanings else x
    for task, x in logits.items()
  }


def _terms(meanings: Mapping[str, Meaning]) -> int:
  kinds = {meaning.kind for meaning in meanings.values()}
  return _TERMS_OF_COUNTS if 'count' in kinds else _TERMS


def _exp(x: np.ndarray, terms: int) -> np.ndarray:
  size, total = np.abs(x), np.ones_like(x)
  with np.errstate(over='ignore'):
    for i in range(terms, 0, -1):
      total = 1 + total * size / np.float32(i)
  return np.where(x < 0, 1 / total, total)


def _predict(x: np.ndarray, meaning: Meaning, terms: int) -> np.ndarray:
  std, mean = np.float32(meaning.std), np.float32(meaning.mean)
  if meaning.kind == 'number':
    return x * std + mean
  if meaning.kind == 'count':
    return _exp(np.minimum(x, _MOST), terms) * std
  if meaning.kind == 'classes':
    powers = _exp(x - x.max(axis=1, keepdims=True), terms)
    total = np.zeros(len(x), np.float32)
    for column in powers.T:
      total += column
    return powers / total[:, None]
  if meaning.kind == 'ordered classes':
    x = -np.sort(-x, axis=1)
    above = 1 / (1 + _exp(-x, terms))
    ends = np.ones((len(x), 1), np.float32), np.zeros((len(x), 1), np.float32)
    return -np.diff(np.concatenate([ends[0], above, ends[1]], axis=1), axis=1)
  return 1 / (1 + _exp(-x, terms))


def source(
  sizes: Mapping[str, int], meanings: Mapping[str, Meaning]
) -> list[str]:
  """Returns the lines that turn the logits in `found` into predictions.

  Args:
    sizes: `{task: K}`, K the number of logits.
    meanings: of outputs.
  """
  outputs = c_text.identifiers(sizes)
  lines = []
  for task, meaning in meanings.items():
    arguments = f'found->{outputs[task]}, {sizes[task]}'
    std = c_text.number(meaning.std, 'float32')
    mean = c_text.number(meaning.mean, 'float32')
    if meaning.kind == 'number':
      if meaning[1:] != (0, 1):
        lines.append(f'  to_unit({arguments}, {std}, {mean});')
    elif meaning.kind == 'count':
      lines.append(f'  to_counts({arguments}, {std});')
    else:
      lines.append(f'  {_FUNCTIONS[meaning.kind]}({arguments});')
  return lines


_FUNCTIONS = {
  'decisions': 'to_chances',
  'classes': 'to_classes',
  'ordered classes': 'to_ordered_classes',
}


def helpers(meanings: Mapping[str, Meaning]) -> dict[str, str]:
  """Returns the functions that `source` calls; later ones call earlier ones."""
  terms = str(_terms(meanings))
  return {name: text.replace('TERMS', terms) for name, text in _HELPERS.items()}


_HELPERS = {
  'power_of_e': """
/* e^x: the first terms of its series, all of them positive. */
static float power_of_e(float x) {
  const float size = x < 0 ? -x : x;
  float sum = 1;
  int i;
  for (i = TERMS; i > 0; i--) sum = 1 + sum * size / (float)i;
  return x < 0 ? 1 / sum : sum;
}
""",
  'to_chances': """
static void to_chances(float *x, int count) {
  for (; count > 0; count--, x++) *x = 1 / (1 + power_of_e(-*x));
}
""",
  'to_classes': """
static void to_classes(float *x, int count) {
  float largest = x[0], sum = 0;
  int i;
  for (i = 1; i < count; i++)
    if (x[i] > largest) largest = x[i];
  for (i = 0; i < count; i++) {
    x[i] = power_of_e(x[i] - largest);
    sum += x[i];
  }
  for (i = 0; i < count; i++) x[i] /= sum;
}
""",
  'to_ordered_classes': """
/* From logits of being above all classes but the last: see lplmtl.ordinal. */
static void to_ordered_classes(float *x, int count) {
  float above = 1;
  int i, j;
  for (i = 1; i < count; i++)
    for (j = i; j > 0 && x[j] > x[j - 1]; j--) {
      const float larger = x[j];
      x[j] = x[j - 1];
      x[j - 1] = larger;
    }
  for (i = 0; i < count; i++) {
    const float next = 1 / (1 + power_of_e(-x[i]));
    x[i] = above - next;
    above = next;
  }
  x[count] = above;
}
""",
  'to_counts': """
static void to_counts(float *x, int count, float scale) {
  for (; count > 0; count--, x++)
    *x = power_of_e(*x < MOST ? *x : MOST) * scale;
}
""".replace('MOST', c_text.number(_MOST, 'float32')),
  'to_unit': """
static void to_unit(float *x, int count, float scale, float mean) {
  for (; count > 0; count--, x++) *x = *x * scale + mean;
}
""",
}
