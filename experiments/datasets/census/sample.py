"""A generated table with the schema of Census-Income (KDD); not UCI data.

Two latent numbers per person, life stage and status, underlie the columns. Each
label is drawn with a probability that is a function of the input columns only,
so the best possible score is known.
"""

import io
import pathlib
from typing import NamedTuple

import numpy as np

from experiments.datasets.census import columns
from experiments.datasets.census.reader import Table
from experiments.launcher.errors import InputError
from lplmtl import statistics
from lplmtl.tables import Factor

MIN_ROWS, MAX_ROWS = 100, 299_285  # the official files hold this many
# Seed of the true effects, which do not depend on the seed of the rows.
EFFECT_SEED = 1994


class _Spec(NamedTuple):
  """How one column is drawn.

  Attributes:
    size: number of distinct values.
    top: share of the most frequent one.
    latent: the latent number that it follows, `life` or `status`.
    tie: probability that a row's value is a function of that latent number
      rather than noise.
  """

  size: int
  top: float
  latent: str
  tie: float


# Sizes and top shares are those of the real table.
_SPECS = {
  'age': _Spec(91, 0.018, 'life', 1.0),
  'class_worker': _Spec(9, 0.50, 'status', 0.8),
  'det_ind_code': _Spec(52, 0.50, 'status', 0.7),
  'det_occ_code': _Spec(47, 0.50, 'status', 0.9),
  'wage_per_hour': _Spec(700, 0.94, 'status', 0.3),
  'hs_college': _Spec(3, 0.94, 'life', 0.3),
  'major_ind_code': _Spec(24, 0.50, 'status', 0.7),
  'major_occ_code': _Spec(15, 0.50, 'status', 0.9),
  'race': _Spec(5, 0.84, 'status', 0.1),
  'hisp_origin': _Spec(10, 0.86, 'status', 0.1),
  'sex': _Spec(2, 0.52, 'status', 0.2),
  'union_member': _Spec(3, 0.90, 'status', 0.2),
  'unemp_reason': _Spec(6, 0.97, 'status', 0.1),
  'full_or_part_emp': _Spec(8, 0.62, 'life', 0.4),
  'capital_gains': _Spec(120, 0.963, 'status', 0.4),
  'capital_losses': _Spec(110, 0.980, 'status', 0.4),
  'stock_dividends': _Spec(900, 0.894, 'status', 0.4),
  'tax_filer_stat': _Spec(6, 0.37, 'life', 0.8),
  'region_prev_res': _Spec(6, 0.92, 'life', 0.1),
  'state_prev_res': _Spec(51, 0.92, 'life', 0.1),
  'det_hh_fam_stat': _Spec(36, 0.27, 'life', 0.8),
  'det_hh_summ': _Spec(8, 0.38, 'life', 0.8),
  'instance_weight': _Spec(1000, 0.01, 'life', 0.0),
  'mig_chg_msa': _Spec(10, 0.50, 'life', 0.1),
  'mig_chg_reg': _Spec(9, 0.50, 'life', 0.1),
  'mig_move_reg': _Spec(10, 0.50, 'life', 0.1),
  'mig_same': _Spec(3, 0.51, 'life', 0.1),
  'mig_prev_sunbelt': _Spec(4, 0.50, 'life', 0.1),
  'num_emp': _Spec(7, 0.48, 'status', 0.6),
  'fam_under_18': _Spec(5, 0.73, 'life', 0.7),
  'country_father': _Spec(43, 0.80, 'status', 0.1),
  'country_mother': _Spec(43, 0.80, 'status', 0.1),
  'country_self': _Spec(43, 0.89, 'status', 0.1),
  'citizenship': _Spec(5, 0.89, 'status', 0.1),
  'own_or_self': _Spec(3, 0.90, 'status', 0.2),
  'vet_question': _Spec(3, 0.99, 'life', 0.1),
  'vet_benefits': _Spec(3, 0.76, 'life', 0.6),
  'weeks_worked': _Spec(53, 0.48, 'status', 0.7),
  'year': _Spec(2, 0.50, 'life', 0.0),
}
_CODED = (
  'det_ind_code', 'det_occ_code', 'own_or_self', 'vet_benefits', 'year',
)  # fmt: skip
# Share of positives, as in the real table, and standard deviation of the log
# odds, which decides how well a label can be predicted.
_LABELS = {
  'income': (0.062, 2.6),
  'marital': (0.43, 3.2),
  'education': (0.20, 2.4),
}


class Sample(NamedTuple):
  """A generated table.

  Attributes:
    train: two thirds of the rows.
    test: the others.
    optimum: `{task: AUC}` on the test rows of the probabilities from which the
      labels were drawn; a model can exceed it only by chance.
  """

  train: Table
  test: Table
  optimum: dict[str, float]


def make(num_rows: int = 20_000, seed: int = 0) -> Sample:
  """Generates a table; equal arguments give equal rows.

  Args:
    num_rows: training and test rows together, MIN_ROWS to MAX_ROWS.
    seed: of the rows; the true effects do not depend on it.

  Raises:
    InputError: the number of rows is out of bounds.
  """
  if not MIN_ROWS <= num_rows <= MAX_ROWS:
    raise InputError(
      f'num_rows must be from {MIN_ROWS} to {MAX_ROWS:,}, found {num_rows}'
    )
  rng = np.random.default_rng(seed)
  latents = {name: rng.random(num_rows) for name in ('life', 'status')}
  table = {
    name: _column(name, spec, latents[spec.latent], rng)
    for name, spec in _SPECS.items()
  }
  log_odds = _log_odds(table)
  drawn = {
    task: rng.random(num_rows) < 1 / (1 + np.exp(-odds))
    for task, odds in log_odds.items()
  }
  table |= _label_columns(drawn, rng)
  table = {column: table[column] for column in columns.COLUMNS}
  num_train = num_rows * 2 // 3
  train = {c: f.take(np.arange(num_train)) for c, f in table.items()}
  test = {c: f.take(np.arange(num_train, num_rows)) for c, f in table.items()}
  optimum = {
    task: statistics.roc_auc(
      log_odds[task][num_train:], drawn[task][num_train:]
    )
    for task in _LABELS
  }
  return Sample(train, test, optimum)


def write_text(table: Table, path: pathlib.Path) -> None:
  """Writes columns in the official format (42 columns, no header)."""
  texts = [
    np.array([_text(value) for value in table[column].values])
    for column in columns.COLUMNS
  ]
  codes = [table[column].codes for column in columns.COLUMNS]
  out = io.StringIO()
  for row in zip(
    *(t[c] for t, c in zip(texts, codes, strict=True)), strict=True
  ):
    out.write(', '.join(row) + '\n')
  path.write_text(out.getvalue(), encoding='ascii')


def _text(value: object) -> str:
  return f'{value:g}' if isinstance(value, float) else str(value)


def _column(
  name: str, spec: _Spec, latent: np.ndarray, rng: np.random.Generator
) -> Factor:
  size = len(latent)
  follows = rng.random(size) < spec.tie
  position = np.where(follows, latent, rng.random(size))
  shares = 1.0 / np.arange(1, spec.size)
  shares = (1 - spec.top) * shares / shares.sum()
  if name == 'age':
    shares = np.full(spec.size - 1, (1 - spec.top) / (spec.size - 1))
  edges = np.cumsum([spec.top, *shares])[:-1]
  codes = np.searchsorted(edges, position).astype(np.int16)
  return Factor(codes, _values(name, spec.size))


def _values(name: str, size: int) -> np.ndarray:
  numbers = np.arange(size)
  if name in ('age', 'num_emp', 'weeks_worked'):
    return numbers.astype(np.float64)
  if name in columns.NUMERIC:  # amounts: from 50, each 0.5 % above the last
    return np.where(numbers > 0, np.round(50 * 1.005**numbers), 0.0)
  if name == columns.IGNORED:
    return np.array([f'{100 + n}.5' for n in numbers])
  if name == 'year':
    return np.array(['94', '95'])
  if name in _CODED:
    return numbers.astype(np.str_)
  return np.array([f'{name} {n}' for n in numbers])


def _log_odds(table: Table) -> dict[str, np.ndarray]:
  """Returns `{task: [N]}`: a shared part, the task's own, and interactions.

  A column's weight grows with its tie to a latent number and with how often it
  departs from its most frequent value, so that pure noise has no effect.
  """
  rng = np.random.default_rng(EFFECT_SEED)
  names = [c for c in _SPECS if c != columns.IGNORED]
  parts = ('shared', *_LABELS)
  sums = {part: np.zeros(len(table['age'].codes)) for part in parts}
  smooth = {}
  for name in names:
    size, top = _SPECS[name].size, _SPECS[name].top
    steps = np.linspace(-1, 1, size) if size > 2 else np.array([-1.0, 1.0])
    for part in parts:
      # A curved trend over the values, and noise for each of them.
      slope, bend = rng.random() - 0.3, rng.random() - 0.5
      noise = 0.6 * (rng.random(size) - 0.5)
      effect = slope * steps + bend * steps**2 + noise
      strength = np.sqrt(_SPECS[name].tie * (1 - top))
      sums[part] += strength * effect[table[name].codes]
    smooth[name] = steps[table[name].codes]
  interaction = smooth['age'] * smooth['det_occ_code']
  interaction += smooth['weeks_worked'] * smooth['det_hh_summ']
  log_odds = {}
  for task, (share, spread) in _LABELS.items():
    total = 0.7 * _standard(sums['shared']) + 0.7 * _standard(sums[task])
    total = _standard(total + 0.6 * _standard(interaction)) * spread
    log_odds[task] = total + _offset(total, share)
  return log_odds


def _offset(log_odds: np.ndarray, share: float) -> float:
  """Finds what to add for a mean probability of `share`, by bisection."""
  low, high = -20.0, 20.0
  for _ in range(50):  # to within 40 / 2**50, 4e-14
    middle = (low + high) / 2
    mean = (1 / (1 + np.exp(-log_odds - middle))).mean()
    low, high = (middle, high) if mean < share else (low, middle)
  return (low + high) / 2


def _standard(values: np.ndarray) -> np.ndarray:
  return (values - values.mean()) / values.std()


def _label_columns(
  drawn: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, Factor]:
  def draw(is_positive: np.ndarray, no: tuple, yes: tuple) -> Factor:
    chance = rng.random(len(is_positive))
    codes = np.where(
      is_positive, len(no) + (chance * len(yes)).astype(int),
      (chance * len(no)).astype(int),
    )  # fmt: skip
    return Factor(codes.astype(np.int16), np.array((*no, *yes)))

  c = columns
  return {
    'income_50k': draw(drawn['income'], (c.INCOME_BELOW,), (c.INCOME_ABOVE,)),
    'marital_stat': draw(drawn['marital'], c.MARRIED, (c.NEVER_MARRIED,)),
    'education': draw(
      drawn['education'], c.EDUCATION_BELOW, c.EDUCATION_DEGREE
    ),
  }
