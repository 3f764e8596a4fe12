"""From the logits of a packed model to predictions: C99, and the same in NumPy.

Without a mathematical library: e^x is the sum of its series, in one order, so
that both have the same bits.
"""

from collections.abc import Mapping

import numpy as np

from lplmtl import numeric
from lplmtl.export import c_text
from lplmtl.export.meanings import Meaning

# Of the series. With 32, the relative error is below 1e-5 up to e^14, beside
# which a probability is 1e-6; further out the sum is too small, but above 1e6.
# Expected counts go up to e^80.
_TERMS = 32
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


def _power_of_e(size: np.ndarray, terms: int) -> np.ndarray:
  total = np.ones_like(size)
  with np.errstate(over='ignore'):
    for i in range(terms, 0, -1):
      total = 1 + total * size / np.float32(i)
  return total


def _chance(x: np.ndarray, terms: int) -> np.ndarray:
  rest = 1 / (1 + _power_of_e(np.abs(x), terms))
  return np.where(x < 0, rest, 1 - rest)


def _predict(x: np.ndarray, meaning: Meaning, terms: int) -> np.ndarray:
  std, mean = np.float32(meaning.std), np.float32(meaning.mean)
  if meaning.kind == 'number':
    return x * std + mean
  if meaning.kind == 'count':
    x = np.minimum(x, _MOST)
    power = _power_of_e(np.abs(x), terms)
    return np.where(x < 0, 1 / power, power) * std
  if meaning.kind == 'classes':
    shares = 1 / _power_of_e(x.max(axis=1, keepdims=True) - x, terms)
    total = np.zeros(len(x), np.float32)
    for column in shares.T:
      total += column
    return shares / total[:, None]
  if meaning.kind == 'ordered classes':
    above = _chance(-np.sort(-x, axis=1), terms)
    one, zero = (
      np.ones((len(x), 1), np.float32),
      np.zeros((len(x), 1), np.float32),
    )
    return -np.diff(np.concatenate([one, above, zero], axis=1), axis=1)
  return _chance(x, terms)


def source(
  sizes: Mapping[str, int], meanings: Mapping[str, Meaning]
) -> list[str]:
  """Returns the lines that turn the logits in `found` into predictions.

  Args:
    sizes: `{task: K}`, K the number of logits.
    meanings: of outputs.
  """
  kinds = {meanings[task].kind if task in meanings else '' for task in sizes}
  if kinds == {'decisions'}:  # all members at once: they follow each other
    return [f'  to_chances((float *)(void *)found, {sum(sizes.values())});']
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
/* e^x for x >= 0: the first terms of its series. */
static float power_of_e(float x) {
  float sum = 1;
  int i;
  for (i = TERMS; i > 0; i--) sum = 1 + sum * x / (float)i;
  return sum;
}
""",
  'chance': """
/* 1 / (1 + e^-x) */
static float chance(float x) {
  const float rest = 1 / (1 + power_of_e(x < 0 ? -x : x));
  return x < 0 ? rest : 1 - rest;
}
""",
  'to_chances': """
static void to_chances(float *x, int count) {
  for (; count > 0; count--, x++) *x = chance(*x);
}
""",
  'to_classes': """
static void to_classes(float *x, int count) {
  float largest = x[0], sum = 0;
  int i;
  for (i = 1; i < count; i++)
    if (x[i] > largest) largest = x[i];
  for (i = 0; i < count; i++) {
    x[i] = 1 / power_of_e(largest - x[i]);
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
    const float next = chance(x[i]);
    x[i] = above - next;
    above = next;
  }
  x[count] = above;
}
""",
  'to_counts': """
static void to_counts(float *x, int count, float scale) {
  for (; count > 0; count--, x++) {
    const float rate = *x < MOST ? *x : MOST;
    const float power = power_of_e(rate < 0 ? -rate : rate);
    *x = (rate < 0 ? 1 / power : power) * scale;
  }
}
""".replace('MOST', c_text.number(_MOST, 'float32')),
  'to_unit': """
static void to_unit(float *x, int count, float scale, float mean) {
  for (; count > 0; count--, x++) *x = *x * scale + mean;
}
""",
}
