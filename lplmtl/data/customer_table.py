"""A generated table of customers, as raw as one that a user might bring."""

from typing import Any, NamedTuple

import numpy as np

# Rows end before this day; sign-ups and visits are counted back from it.
_TODAY = np.datetime64('2025-07-01T00:00', 'h')
_SIGNUP_DAYS, _VISIT_DAYS = 4 * 365, 90  # how far back the dates reach
_CITIES = tuple(f'city {i:02}' for i in range(40))
_PLANS = ('basic', 'plus', 'family', 'pro')
_CHANNELS = ('web', 'shop', 'partner', 'phone')
_DEVICES = ('android', 'ios', 'windows', 'mac', 'linux')
_SEGMENTS = ('loyal', 'bargain', 'new', 'business')
_NO_LABEL = 0.2  # the share of labels that are missing, in each target
# The share of missing values, per column.
_MISSING = {
  'city': 0.03, 'device': 0.1, 'age': 0.08, 'income': 0.15, 'rating': 0.4,
  'last_visit': 0.12,
}  # fmt: skip


class _Signals(NamedTuple):
  """What the labels are drawn from, `[N]` each, segments `[N, 4]`."""

  churn: np.ndarray
  upgrade: np.ndarray
  segment: np.ndarray
  value: np.ndarray


def customers(num_rows: int, seed: int = 0) -> dict[str, np.ndarray]:
  """Draws customers: strings, numbers, dates, and many missing values.

  The example of `lplmtl.tabular`: twelve inputs and four targets of mixed
  kinds, each of which lacks a fifth of its labels, at random and on its own.
  The targets depend on the inputs through curves, interactions and thresholds
  that they partly share. A missing value acts as a value of its own, so the
  best possible scores are known: an AUC of .782 for churn and .864 for upgrade,
  an accuracy of .661 for segment, and an R^2 of .791 for value.

  Args:
    num_rows: N >= 1.
    seed: seed of the generator; the same seed gives the same rows.

  Returns:
    `{column: [N]}`. Inputs: the strings `city` (40 values), `plan`, `channel`,
    `device` and `newsletter` (yes or no), object with None where missing; the
    numbers `age`, `income`, `visits`, `spend` and `rating` (1 to 5), float64
    with NaN; and `signup` (`2024-12-31`) and `last_visit`
    (`2025-06-30 14:00`), strings or None. Targets: `churn` (yes or no),
    `upgrade` (True or False) and `segment` (one of four strings), object with
    None, and `value`, float64 with NaN.

  Raises:
    ValueError: `num_rows` is too small.

  Example:
    >>> table = customers(1000)
    >>> len(table), table['plan'][0] in ('basic', 'plus', 'family', 'pro')
    (16, True)
  """
  if num_rows < 1:
    raise ValueError(f'expected at least 1 row, found {num_rows}')
  rng = np.random.default_rng(seed)
  inputs = _draw_inputs(rng, num_rows)
  hidden = {
    name: rng.random(num_rows) < share for name, share in _MISSING.items()
  }
  targets = _draw_targets(rng, _signals(inputs, hidden))
  for name, where in hidden.items():
    inputs[name][where] = _nothing(inputs[name])
  for column in targets.values():
    column[rng.random(num_rows) < _NO_LABEL] = _nothing(column)
  return {**_with_texts(inputs), **targets}


def _nothing(column: np.ndarray) -> Any:
  if column.dtype == object:
    return None
  return np.datetime64('NaT', 'h') if column.dtype.kind == 'M' else np.nan


def _draw_inputs(
  rng: np.random.Generator, num_rows: int
) -> dict[str, np.ndarray]:
  """Draws the inputs; dates are datetime64."""
  # Few large cities and many small ones.
  shares = 1 / np.arange(2, len(_CITIES) + 2)
  age = rng.gamma(9, 5, num_rows).clip(18, 95).round()
  # Income rises with age; spend rises with income.
  income = np.exp(rng.normal(10.2 + 0.01 * (age - 45), 0.5)).round(-2)
  spend = np.exp(rng.normal(3, 0.8, num_rows)) * (income / 30_000) ** 0.5
  days = (_SIGNUP_DAYS * rng.beta(1, 1.5, num_rows)).astype(int)
  hours = (24 * _VISIT_DAYS * rng.beta(0.7, 2, num_rows)).astype(int)

  def choose(values: Any, p: Any = None) -> np.ndarray:
    return rng.choice(np.array(values, object), num_rows, p=p)

  return {
    'city': choose(_CITIES, shares / shares.sum()),
    'plan': choose(_PLANS, (0.45, 0.3, 0.15, 0.1)),
    'channel': choose(_CHANNELS, (0.5, 0.25, 0.15, 0.1)),
    'device': choose(_DEVICES, (0.4, 0.3, 0.2, 0.07, 0.03)),
    'newsletter': choose(('yes', 'no'), (0.4, 0.6)),
    'age': age,
    'income': income,
    'visits': rng.negative_binomial(1.5, 0.15, num_rows).astype(float),
    'spend': spend.round(2),
    'rating': rng.choice(5, num_rows, p=(0.1, 0.1, 0.2, 0.35, 0.25)) + 1.0,
    'signup': _TODAY - days.astype('m8[D]'),
    'last_visit': _TODAY - hours.astype('m8[h]'),
  }


def _signals(
  inputs: dict[str, np.ndarray], hidden: dict[str, np.ndarray]
) -> _Signals:
  """Computes what the labels depend on, from values that are not hidden.

  Offsets set the shares of the classes; factors keep every effect at about the
  same size, so that no single input decides a target.
  """
  # Fixed, so that all seeds draw rows from one distribution.
  truth = np.random.default_rng(117)

  def effect(name: str, values: Any, scale: float) -> np.ndarray:
    effects = dict(
      zip(values, truth.normal(0, scale, len(values)), strict=True)
    )
    found = np.array([effects[value] for value in inputs[name]])
    return np.where(hidden[name], 0, found) if name in hidden else found

  def number(name: str, centre: float, scale: float, fill: float) -> np.ndarray:
    values = inputs[name]
    if values.dtype.kind == 'M':
      values = (_TODAY - values).astype('m8[h]').astype(float) / 24
    scaled = (values - centre) / scale
    return np.where(hidden[name], fill, scaled) if name in hidden else scaled

  age, rating = number('age', 45, 15, 0.3), number('rating', 3.5, 1.2, -0.4)
  income = np.log1p(number('income', 0, 30_000, 0.7))
  spend = np.log1p(number('spend', 0, 20, 0))
  visits = np.sqrt(number('visits', 0, 8, 0))
  tenure = number('signup', 0, 365, 0)
  absence = np.log1p(number('last_visit', 0, 10, 1.5))
  city = effect('city', _CITIES, 0.6)
  plan, channel = effect('plan', _PLANS, 0.7), effect('channel', _CHANNELS, 0.5)
  device = effect('device', _DEVICES, 0.4)
  reads = inputs['newsletter'] == 'yes'
  month = inputs['signup'].astype('M8[M]').astype(int) % 12
  summer = (month >= 5) & (month <= 7)
  # Two traits that the targets share.
  engaged = visits * (1 + 0.4 * reads) - 0.8 * absence + 0.5 * rating + device
  wealthy = 1.2 * income + 0.7 * spend + np.sin(1.5 * age) + 0.7 * city
  churn = (
    -1.1 * engaged + channel - 0.8 * np.exp(-((tenure - 1) ** 2))
    + 0.8 * summer + 0.7 * (rating < -1) - 0.9
  )  # fmt: skip
  upgrade = (
    0.6 * engaged + wealthy * (1 + 0.5 * (plan > 0)) + 1.2 * plan
    - 0.5 * np.abs(age) - 2.9
  )  # fmt: skip
  segment = np.stack(
    [
      1.2 * engaged + 0.8 * tenure - 0.4,
      3 - 1.2 * wealthy + 0.9 * reads,
      2.2 - 2.2 * tenure + 0.8 * summer,
      1.2 * wealthy + 1.5 * plan + 1.1 * channel - 1.8,
    ],
    axis=1,
  )
  value = wealthy + 0.5 * engaged + plan * spend + 0.6 * tenure * (engaged > 0)
  return _Signals(churn, upgrade, segment, value)


def _draw_targets(
  rng: np.random.Generator, signals: _Signals
) -> dict[str, np.ndarray]:
  def flip(logits: np.ndarray) -> np.ndarray:
    return rng.random(len(logits)) < 1 / (1 + np.exp(-logits))

  churn = np.where(flip(signals.churn), 'yes', 'no').astype(object)
  # The largest of logits and Gumbel noise is a draw from their softmax.
  noisy = signals.segment + rng.gumbel(size=signals.segment.shape)
  segment = np.array(_SEGMENTS, object)[noisy.argmax(axis=1)]
  noise = rng.normal(0, 0.8, len(churn))
  return {
    'churn': churn,
    'upgrade': flip(signals.upgrade).astype(object),
    'segment': segment,
    'value': (250 + 100 * (signals.value + noise)).round(2),
  }


def _with_texts(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Writes the dates as a file would hold them."""

  def write(days: np.ndarray) -> np.ndarray:
    texts = np.char.replace(np.datetime_as_string(days), 'T', ' ')
    unit = np.datetime_data(days.dtype)[0]
    whole = texts if unit == 'D' else np.char.add(texts, ':00')
    column = whole.astype(object)
    column[np.isnat(days)] = None
    return column

  return {
    **inputs,
    'signup': write(inputs['signup'].astype('M8[D]')),
    'last_visit': write(inputs['last_visit']),
  }
