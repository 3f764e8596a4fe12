"""From the labels of a table to arrays, and from logits to its own values."""

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn import preprocessing

from lplmtl import tabular
from lplmtl.columns import Factor, RowError
from lplmtl.tabular import Schema, Target, targets
from lplmtl.tabular import schema as schemas

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=N)
NUMBERS = RNG.normal(size=N)
ORDER = RNG.permutation(N)


def _mixed(*values):
  return [values[i % len(values)] for i in ORDER]


def _infer(column, target=('y',), **options):
  return tabular.infer(
    {'x': X, 'y': column}, target, tabular.Options(**options)
  )


KINDS = {
  'texts, two': (_mixed('no', 'yes', None), 'binary', ('no', 'yes'), 'yes'),
  'booleans': (_mixed(True, False), 'binary', (False, True), True),
  'booleans, some missing': (_mixed(True, None, False), 'binary', (False, True), True),
  'nullable booleans': (pd.Series(_mixed(True, None, False), dtype='boolean'), 'binary', (False, True), True),
  'zeros and ones': (np.array(_mixed(0, 1)), 'binary', (0, 1), 1),
  'floats of missing ones': (_mixed(0.0, np.nan, 1.0), 'binary', (0, 1), 1),
  'minus and plus one': (_mixed(-1, 1), 'binary', (-1, 1), 1),
  'texts of numbers': (_mixed('0', '1'), 'binary', ('0', '1'), '1'),
  'the last in order': (_mixed('churned', 'stayed'), 'binary', ('churned', 'stayed'), 'stayed'),
  'yes in German': (_mixed('Ja', 'Nein'), 'binary', ('Ja', 'Nein'), 'Ja'),
  'yes in Spanish': (_mixed('no', 'sí'), 'binary', ('no', 'sí'), 'sí'),
  'a class that says yes': (_mixed('true', 'wrong'), 'binary', ('true', 'wrong'), 'true'),
  'Categorical': (pd.Categorical(_mixed('b', 'a')), 'binary', ('a', 'b'), 'b'),
  'Factor': (Factor(ORDER % 2, np.array(['a', 'b'])), 'binary', ('a', 'b'), 'b'),
  'two fractions': (_mixed(0.5, 1.5), 'binary', (0.5, 1.5), 1.5),
  'texts, three': (_mixed('b', 'a', 'c'), 'multiclass', ('a', 'b', 'c'), None),
  'few whole numbers': (_mixed(3, 1, 2), 'multiclass', (1, 2, 3), None),
  'few whole floats': (_mixed(3.0, 1.0, np.nan, 2.0), 'multiclass', (1, 2, 3), None),
  'numbers as texts': (_mixed('10', '9', '8'), 'multiclass', ('8', '9', '10'), None),
  'codes': (_mixed('01', '02', '10'), 'multiclass', ('01', '02', '10'), None),
  'many whole numbers': (np.arange(N) * 7, 'regression', (), None),
  'fractions': (X.round(3), 'regression', (), None),
  'fractions as texts': (list(map(str, X)), 'regression', (), None),
  'few fractions': (_mixed(0.5, 1.5, 2.5), 'regression', (), None),
}  # fmt: skip


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.filterwarnings("ignore:column 'x' tells")
def test_kind_and_classes(name):
  column, kind, classes, positive = KINDS[name]
  found = _infer(column).targets['y']
  assert (found.kind, found.classes, found.positive) == (
    kind,
    classes,
    positive,
  )
  assert [type(c) for c in found.classes] == [type(c) for c in classes]


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.filterwarnings("ignore:column 'x' tells")
def test_labels_come_back_in_the_users_own_values(name):
  """Logits that say what the labels say decode to the labels."""
  column, kind, _, _ = KINDS[name]
  schema = _infer(column)
  labels, where, weights = tabular.encode_labels(schema, {'y': column})
  assert weights is None
  y, w = labels['y'], where['y']
  assert y.dtype == (np.float32 if kind == 'regression' else np.int32)
  logits = y[:, None] * 8.0 - 4 if kind == 'binary' else y[:, None]
  if kind == 'multiclass':
    logits = 9.0 * np.eye(len(schema.targets['y'].classes))[y]
  decoded = tabular.decode(schema, {'y': logits})['y']
  if isinstance(column, Factor):
    column = column.values[column.codes]
  given = pd.Series(list(column)).astype(object)
  assert w.tolist() == given.notna().tolist()
  for found, value in zip(decoded[w], given[w], strict=True):
    if kind == 'regression':
      assert found == pytest.approx(float(value), rel=1e-5, abs=1e-4)
    else:
      assert found == value
      assert isinstance(found, str) == isinstance(value, str)
      assert isinstance(found, bool | np.bool_) == isinstance(
        value, bool | np.bool_
      )


def test_the_positive_class_can_be_chosen():
  column = _mixed('no', 'yes')
  schema = _infer(column, positive={'y': 'no'})
  assert schema.targets['y'].positive == 'no'
  labels, _, _ = tabular.encode_labels(schema, {'y': column})
  assert labels['y'].tolist() == [int(value == 'no') for value in column]
  decoded = tabular.decode(schema, {'y': np.array([[2.0], [-2.0]])})
  assert decoded['y'].tolist() == ['no', 'yes']
  assert decoded['y_probability'][0] > 0.5
  # A text will do for a number or a boolean, as flags are texts.
  for classes, text, value in (
    ((0, 1), '0', 0),
    ((False, True), 'false', False),
  ):
    found = _infer(_mixed(*classes), positive={'y': text}).targets['y'].positive
    assert found is value


def test_a_positive_class_that_nobody_chose_is_said():
  frame = {'x': X, 'y': _mixed('churned', 'stayed')}

  def note(schema):
    described = tabular.describe(schema, frame)
    return next(row['note'] for row in described if row['column'] == 'y')

  schema = tabular.infer(frame, 'y')
  assert note(schema) == (
    "positive: 'stayed'; the positive class is the last in order; name another "
    'in positive'
  )
  # Read back, it still holds; edited, it does not.
  data = schema.to_json()
  assert tabular.complete(Schema.from_json(data), frame) == schema
  data['targets']['y']['positive'] = 'churned'
  edited = tabular.complete(Schema.from_json(data), frame)
  assert note(edited) == "positive: 'churned'"
  chosen = tabular.complete(schema, frame, {'y': 'stayed'})
  assert note(chosen) == "positive: 'stayed'"
  said = _infer(_mixed('ja', 'nein')).targets['y']
  assert (said.positive, said.reason) == ('ja', '')


def test_twins_are_the_same_class():
  schema = _infer(_mixed(1, 0))
  for twins in (
    [1.0, 0.0],
    ['1', '0'],
    [' 1.0', '0'],
    np.array([1, 0], np.int8),
  ):
    assert tabular.encode_labels(schema, {'y': twins})[0]['y'].tolist() == [
      1,
      0,
    ]
  schema = _infer(_mixed(True, False))
  for twins in ([True, False], ['True', 'false'], [1, 0], ['yes', 'no']):
    assert tabular.encode_labels(schema, {'y': twins})[0]['y'].tolist() == [
      1,
      0,
    ]


@pytest.mark.parametrize(
  'lost', [None, np.nan, '', ' ', 'NA', '?', pd.NA, pd.NaT, 'unknown']
)
def test_missing_labels(lost):
  schema = _infer(['a', 'b', lost] * 20, missing=('NA', '?', 'unknown'))
  assert schema.targets['y'].classes == ('a', 'b')
  labels, where, _ = tabular.encode_labels(schema, {'y': ['b', lost, 'a']})
  assert (labels['y'].tolist(), where['y'].tolist()) == (
    [1, 0, 0],
    [True, False, True],
  )
  numbers = _infer([1.5, 2.5, lost, 3.5] * 15, missing=('NA', '?', 'unknown'))
  labels, where, _ = tabular.encode_labels(numbers, {'y': [2.5, lost]})
  assert (labels['y'].tolist(), where['y'].tolist()) == ([0, 0], [True, False])


def test_a_regression_is_standardised_as_by_scikit_learn():
  column = np.exp(X) * 1e4
  schema = _infer(column)
  labels, _, _ = tabular.encode_labels(schema, {'y': column})
  expected = preprocessing.StandardScaler().fit_transform(column[:, None])
  np.testing.assert_allclose(labels['y'], expected[:, 0], rtol=1e-5, atol=1e-6)
  decoded = tabular.decode(schema, {'y': expected})
  np.testing.assert_allclose(decoded['y'], column, rtol=1e-12)


def test_classes_unknown_from_training_count_as_missing_and_it_is_said():
  schema = _infer(_mixed('a', 'b', 'c'))
  with pytest.warns(
    UserWarning,
    match="target 'y': 2 rows with a class that is in no training row, such as 'd'",
  ):
    labels, where, _ = tabular.encode_labels(
      schema, {'y': ['d', 'a', 'd', None]}
    )
  assert where['y'].tolist() == [False, True, False, False]
  assert labels['y'].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
  'column',
  [[1.5, 'abc'], [1.5, np.inf], np.array(['2020-01-01', 'NaT'], 'M8[D]')],
)
def test_labels_that_are_no_numbers(column):
  with pytest.raises(ValueError, match="column 'y' must hold"):
    tabular.encode_labels(_infer(NUMBERS), {'y': column})


def test_counts():
  visits = RNG.poisson(3, N)
  schema = _infer(visits, {'y': 'count'})
  labels, _, _ = tabular.encode_labels(schema, {'y': visits})
  mean = visits.mean()
  np.testing.assert_allclose(labels['y'], visits / mean, rtol=1e-6)
  decoded = tabular.decode(schema, {'y': np.log([[2.0], [0.25]])})
  np.testing.assert_allclose(decoded['y'], [2 * mean, 0.25 * mean])
  assert np.isfinite(
    tabular.decode(schema, {'y': np.array([[1e4]])})['y']
  ).all()
  for bad in (visits - 9, visits + 0.5):
    with pytest.raises(
      ValueError, match=r"'y' must hold counts \(0, 1, 2, ...\), found '"
    ):
      _infer(bad, {'y': 'count'})


def test_ordered_classes():
  grades = _mixed('low', 'middle', 'high')
  with pytest.raises(
    ValueError,
    match="needs its classes in order, found 'high', 'low', 'middle'",
  ):
    _infer(grades, {'y': 'ordinal'})
  target = Target('ordinal', ('low', 'middle', 'high'))
  schema = _infer(grades, {'y': target})
  kept = pd.Series(
    pd.Categorical(grades, ['low', 'middle', 'high'], ordered=True)
  )
  assert _infer(kept, {'y': 'ordinal'}) == schema
  labels, _, _ = tabular.encode_labels(schema, {'y': grades})
  assert labels['y'].tolist() == [
    target.classes.index(value) for value in grades
  ]
  assert _infer(_mixed('10', '9', '8'), {'y': 'ordinal'}).targets[
    'y'
  ].classes == ('8', '9', '10')
  # P(above low) = 3/4, P(above middle) = 1/4.
  decoded = tabular.decode(schema, {'y': np.log([[3, 1 / 3]])})
  assert decoded['y'].tolist() == ['middle']
  assert [
    decoded[f'y_probability_{c}'].item() for c in target.classes
  ] == pytest.approx([0.25, 0.5, 0.25])


TAGS = {'red': _mixed(1, 0, 0), 'green': _mixed(0, 1, None), 'x': X}


def test_several_labels():
  schema = tabular.infer(TAGS, {'tags': ('multilabel', ('red', 'green'))})
  assert list(schema.inputs) == ['x']
  labels, where, _ = tabular.encode_labels(schema, TAGS)
  known = [value is not None for value in TAGS['green']]
  assert where['tags'].tolist() == known
  assert labels['tags'].shape == (N, 2)
  expected = np.array([TAGS['red'], TAGS['green']], object).T[known]
  assert labels['tags'][known].tolist() == expected.tolist()
  decoded = tabular.decode(schema, {'tags': np.array([[5.0, -5], [-5, 5]])})
  assert list(decoded) == [
    'red',
    'green',
    'red_probability',
    'green_probability',
  ]
  assert decoded['red'].tolist() == [1, 0]
  assert decoded['green_probability'][1] > 0.99


def test_a_target_with_another_name():
  schema = tabular.infer(
    {'x': X, 'Churn flag': _mixed('y', 'n')},
    {'churn': ('binary', ('Churn flag',))},
  )
  assert list(tabular.decode(schema, {'churn': np.zeros((2, 1))})) == [
    'churn',
    'churn_probability',
  ]


def test_tasks_fit_the_labels():
  frame = {
    'x': X, 'a': _mixed('n', 'y'), 'b': _mixed('u', 'v', 'w'), 'c': X**2, 'd': RNG.poisson(2, N),
    'e': _mixed(1, 2, 3, 4), **TAGS,
  }  # fmt: skip
  wanted = {
    'a': None,
    'b': None,
    'c': None,
    'd': 'count',
    'e': 'ordinal',
    'f': ('multilabel', ('red', 'green')),
  }
  schema = tabular.infer(frame, wanted)
  tasks = tabular.make_tasks(schema)
  assert [task.name for task in tasks] == list(wanted)
  assert [task.num_outputs for task in tasks] == [1, 3, 1, 1, 3, 2]
  labels, _, _ = tabular.encode_labels(schema, frame)
  logits = {task.name: RNG.normal(size=(N, task.num_outputs)) for task in tasks}
  for task in tasks:
    loss = jax.eval_shape(task.loss_fn, logits[task.name], labels[task.name])
    assert loss.shape == (N,)
  decoded = tabular.decode(schema, logits)
  names = [
    c for n, t in schema.targets.items() for c in schemas.output_columns(n, t)
  ]
  assert list(decoded) == names
  assert all(len(column) == N for column in decoded.values())
  # In chunks, and for a single row, the same bits.
  part = tabular.decode(schema, {n: one[7:8] for n, one in logits.items()})
  assert all(part[name][0] == decoded[name][7] for name in names)
  shares = [
    sum(decoded[f'{n}_probability_{c}'] for c in schema.targets[n].classes)
    for n in 'be'
  ]
  np.testing.assert_allclose(shares, 1)


def test_seeds_are_averaged_after_the_probabilities():
  schema = _infer(_mixed('no', 'yes'))
  logits = np.array([[[4.0]], [[-1.0]], [[-1.0]]])
  decoded = tabular.decode(schema, {'y': logits})
  expected = np.mean(1 / (1 + np.exp(-logits)))
  assert decoded['y_probability'] == pytest.approx([expected])
  assert decoded['y'].tolist() == ['yes' if expected > 0.5 else 'no']
  numbers = _infer(NUMBERS)
  mean = tabular.decode(numbers, {'y': logits})['y']
  assert mean == pytest.approx(
    tabular.decode(numbers, {'y': logits.mean(0)})['y']
  )


@pytest.mark.parametrize('kind', ['binary', 'count'])
def test_a_row_alone_has_the_bits_that_it_has_among_others(kind):
  """Also of 8 seeds and more, whose sum NumPy takes in another order."""
  target = Target(kind, mean=3.0)
  logits = np.random.default_rng(0).normal(size=(12, 40, 1))
  together = targets.mean_outputs(target, logits)
  alone = [
    targets.mean_outputs(target, logits[:, i : i + 1]) for i in range(40)
  ]
  assert (np.concatenate(alone) == together).all()


def test_scores_far_out_are_no_nan():
  schema = _infer(_mixed('a', 'b', 'c'))
  decoded = tabular.decode(schema, {'y': np.array([[1e4, -1e4, 0]])})
  assert decoded['y_probability_a'].tolist() == [1]
  schema = _infer(_mixed('a', 'b'))
  assert tabular.decode(schema, {'y': np.array([[-1e4]])})[
    'y_probability'
  ].tolist() == [0]


def test_weights_of_rows_and_of_targets():
  frame = {
    'x': X,
    'y': _mixed('a', 'b'),
    'z': X**2,
    'w': np.arange(N),
    'v': ['2'] * N,
  }
  options = {'weight': 'w'}
  schema = tabular.infer(frame, ['y', 'z'], tabular.Options(**options))
  weights = tabular.encode_labels(schema, frame)[2]
  assert weights.dtype == np.float32
  assert weights.tolist() == list(range(N))
  options = {'weight': 'w', 'task_weights': {'z': 'v'}}
  schema = tabular.infer(frame, ['y', 'z'], tabular.Options(**options))
  weights = tabular.encode_labels(schema, frame)[2]
  assert weights['y'].tolist() == list(range(N))
  assert weights['z'].tolist() == list(range(0, 2 * N, 2))
  options = {'task_weights': {'z': 'v'}}
  schema = tabular.infer(frame, ['y', 'z'], tabular.Options(**options))
  assert tabular.encode_labels(schema, frame)[2]['y'].tolist() == [1] * N
  frame['w'] = [-1.0] * N
  schema = Schema({}, {}, weight='w')
  with pytest.raises(
    RowError, match="'w' holds weights, which must be >= 0; found -1 in row 0"
  ):
    tabular.encode_labels(schema, frame)
  assert tabular.encode_labels(schema, {'x': X}, weighted=False)[2] is None
  with pytest.raises(RowError, match="'w'.*nan in row 1"):
    tabular.encode_labels(schema, {'w': [1, None]})


def test_counts_of_other_rows_are_not_negative():
  schema = _infer(np.arange(N), {'y': 'count'})
  with pytest.raises(
    RowError, match="'y' must hold counts, 0 or more; found -3 in row 1"
  ):
    tabular.encode_labels(schema, {'y': [1, -3]})


def test_class_balance():
  frame = {'x': X, 'y': ['a', 'b', 'b', None] * 15, **TAGS}
  schema = tabular.infer(
    frame, {'y': None, 'tags': ('multilabel', ('red', 'green'))}
  )
  balance = tabular.class_balance(schema, frame)
  assert balance[:2] == [
    {
      'target': 'y',
      'class': 'a',
      'rows': 15,
      'share': 1 / 3,
      'positive': False,
    },
    {'target': 'y', 'class': 'b', 'rows': 30, 'share': 2 / 3, 'positive': True},
  ]
  assert balance[2] == {
    'target': 'tags',
    'class': 'red',
    'rows': 20,
    'share': 1 / 3,
    'positive': False,
  }
  assert balance[3]['share'] == 0.5


@pytest.mark.parametrize(
  'kind, what', [('regression', 'scale'), ('binary', 'classes')]
)
def test_a_schema_that_is_not_complete_says_what_is_missing(kind, what):
  schema = Schema({}, {'y': Target(kind)})
  with pytest.raises(
    ValueError, match=f'{kind} target needs the {what} of the training rows'
  ):
    targets.encode_labels(schema, {'y': X})
