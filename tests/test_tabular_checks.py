"""Bad tables: one clear line each."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest

from lplmtl import tables, tabular
from lplmtl.columns import Factor, RowError
from lplmtl.tabular import checks, hints

N = 60
RNG = np.random.default_rng(0)
FRAME = {
  'city': RNG.choice(['Oslo', 'Rome', 'Lima'], N).tolist(),
  'age': RNG.integers(18, 80, N),
  'churn': RNG.choice(['no', 'yes'], N),
  'segment': RNG.choice(['a', 'b', 'c'], N).astype(object),
  'value': RNG.normal(100, 20, N),
}


def _infer(target='churn', **changes):
  return tabular.infer({**FRAME, **changes}, target)


@pytest.mark.parametrize(
  'target, changes, message',
  [
    ('chrun', {}, r"target 'chrun': there is no column 'chrun'; did you mean 'churn'\?"),
    ('CHURN', {}, "did you mean 'churn'"),
    ('q', {}, "no column 'q'; there are 'city', 'age', 'churn', 'segment', 'value'$"),
    ((), {}, 'at least one target, found none'),
    ('churn', {'churn': [None] * N}, "target 'churn' has no label in any of the 60 training rows"),
    ('value', {'value': np.full(N, np.nan)}, "target 'value' has no label"),
    ('churn', {'churn': ['no'] * N}, "'churn' must have two classes or more in the training rows, found 'no' only"),
    ('churn', {'churn': ['no', None] * 30}, "found 'no' only"),
    ({'value': 'regression'}, {'value': np.ones(N)}, "'value' must vary, but each of the 60 rows with a label has '1'"),
    ({'value': 'regression'}, {'value': ['cheap', *FRAME['value'][1:]]}, "'value' must hold numbers, found 'cheap' in 1 of 60 rows: name it in missing"),
    ({'value': 'regression'}, {'value': ['a', 'b', '1'] * 20}, "found 'a' in 20 of 60 rows, and the like in 40 rows altogether: make it multiclass"),
    ({'churn': 'regression'}, {}, "'churn' must hold numbers, found 'no' in 28 of 60 rows, and the like in 60 rows altogether: make it binary$"),
    ({'value': 'regression'}, {'value': [f'{i}.001,5 EUR' for i in range(N)]}, "rows; numbers written like '0.001,5 EUR': convert them"),
    ('value', {'value': [f'CHF {i}\'000' for i in range(N)]}, "for classes, .*: numbers written like .CHF 0.000.: convert them"),
    ('value', {'value': [*map(str, range(N - 1)), 'x']}, 'for classes, .*: numbers are a regression, and texts between'),
    ({'value': 'regression'}, {'value': [np.inf, *FRAME['value'][1:]]}, "'value' must hold finite numbers, found inf"),
    ({'value': 'regression'}, {'value': FRAME['value'] * 1e200}, r"'value' must hold numbers that can be scaled, found \S+e\+20"),
    ({'churn': 'binary'}, {'churn': ['no', 'yes', 'maybe'] * 20}, "binary target 'churn' must have two classes, found 3: 'maybe', 'no', 'yes'"),
    ('churn', {'churn': ['x' * 10**6] * N}, r"found 'x{37}\.\.\.' only"),
    ({'churn': 'ordinal'}, {'churn': [0, 1] * 30}, "ordinal target 'churn' must have three classes or more, found 2"),
    ('churn', {'churn': [f'c{i}' for i in range(N)]}, "'churn' has 60 different values in 60 rows, too many for classes, such as 'c0', 'c1', 'c10' and 57 more: a class must occur in several rows"),
    ('churn', {'churn': np.arange(N).astype('M8[D]')}, "'churn' must hold classes or numbers, found times"),
    ({'churn': 'class'}, {}, 'kind of a target must be one of binary.*found .class.'),
    ({'tags': 'multilabel'}, {'tags': FRAME['churn']}, "'tags' needs its columns, two or more"),
    ({'tags': ('multilabel', ('churn', 'churn'))}, {}, "columns of multilabel target 'tags' must differ, found 'churn', 'churn'"),
    ({'tags': ('multilabel', ('churn', 'segment'))}, {}, "of multilabel target 'tags' must hold the same two values.*found 'a', 'b', 'c', 'no', 'yes'"),
    ({'tags': ('multilabel', ('one', 'two'))}, {'one': ['x', None] * 30, 'two': [None, 'x'] * 30}, "found 'x'; a blank is a missing label"),
  ],
)  # fmt: skip
def test_targets_that_leave_nothing_to_learn(target, changes, message):
  with pytest.raises(ValueError, match=message):
    _infer(target, **changes)


@pytest.mark.parametrize('target', [{5: 'binary'}, [5]])
def test_a_target_whose_name_is_a_number_is_given_another(target):
  frame = {**FRAME, 5: FRAME['churn']}
  with pytest.raises(
    ValueError, match='name of a target must be a text, found 5'
  ):
    tabular.infer(frame, target)


def test_a_class_that_occurs_once_is_warned_of():
  segment = ['d', *FRAME['segment'][1:]]
  with pytest.warns(
    UserWarning, match="'segment': 'd' occurs in one training row only"
  ):
    schema = _infer('segment', segment=segment)
  assert schema.targets['segment'].classes == ('a', 'b', 'c', 'd')
  target = tabular.Target('multiclass', ('a', 'b', 'c', 'x'))
  with pytest.warns(
    UserWarning, match="'segment': 'x' occurs in no training row"
  ):
    _infer({'segment': target})


def test_several_rare_classes_share_a_warning():
  segment = ['d', 'e', *FRAME['segment'][2:]]
  with pytest.warns(
    UserWarning, match="'d', 'e' occur, each in one training row only"
  ):
    _infer('segment', segment=segment)


def test_classes_beyond_the_whole_numbers_of_floats_differ():
  ids = np.array([2**60, 2**60 + 1] * 30)
  assert _infer(churn=ids).targets['churn'].classes == (2**60, 2**60 + 1)


def test_a_label_that_never_varies_is_warned_of():
  target = {'tags': ('multilabel', ('red', 'green'))}
  with pytest.warns(
    UserWarning, match="column 'green' has the same value in all"
  ):
    _infer(target, red=RNG.integers(0, 2, N), green=[0] * N)


WRITTEN = {'a': 'x7', 'b': 'q', 'c': 'm'}
DISGUISES = {
  'a copy': ('segment', lambda: FRAME['segment']),
  'other names': ('segment', lambda: [WRITTEN[c] for c in FRAME['segment']]),
  'numbers for texts': ('segment', lambda: [ord(c) for c in FRAME['segment']]),
  'a copy with gaps': ('segment', lambda: np.where(RNG.random(N) < 0.2, None, FRAME['segment'])),
  'booleans': ('churn', lambda: FRAME['churn'] == 'yes'),
  'a value in one class only': ('churn', lambda: np.where(FRAME['churn'] == 'yes', FRAME['age'], np.nan)),
  'a number as text': ('value', lambda: list(map(str, FRAME['value']))),
  'another unit': ('value', lambda: 32 - 1.8 * FRAME['value']),
  'rounded to float32': ('value', lambda: FRAME['value'].astype(np.float32)),
}  # fmt: skip


@pytest.mark.parametrize('name', DISGUISES)
def test_a_target_in_disguise_is_warned_of(name):
  target, disguise = DISGUISES[name]
  with pytest.warns(
    UserWarning,
    match=f"column 'copy' tells '{target}' almost exactly: .* leave it out",
  ):
    schema = tabular.infer(
      {**FRAME, 'copy': disguise()},
      target,
      tabular.Options(numbers=['copy'] if target == 'value' else ()),
    )
  assert schema.inputs['copy'].kind in ('category', 'number', 'boolean')


def test_no_warning_without_a_reason():
  noisy = FRAME['value'] + RNG.normal(0, 1e-3, N)
  coarse = np.where(np.isin(FRAME['segment'], ['a', 'b']), 'ab', 'c')
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    _infer(
      ['segment', 'value', 'churn'],
      noisy=noisy,
      coarse=coarse,
      y=RNG.permutation(FRAME['churn']),
    )
    # What is left out cannot give anything away.
    tabular.infer(
      {**FRAME, 'copy': FRAME['segment']},
      'segment',
      tabular.Options(ignore=['copy']),
    )


def test_a_disguise_is_seen_in_a_long_table():
  n = 100_000
  churn = RNG.integers(0, 2, n)
  frame = {
    'x': RNG.normal(size=n),
    'copy': Factor(churn, np.array(['stay', 'go'])),
    'churn': churn,
  }
  with pytest.warns(UserWarning, match="column 'copy' tells 'churn'"):
    tabular.infer(frame, 'churn')


def test_a_target_is_never_an_input():
  schema = tabular.infer(
    {**FRAME, 'b': FRAME['churn'], 'c': RNG.permutation(FRAME['churn'])},
    {'tags': ('multilabel', ('churn', 'c')), 'segment': None},
    tabular.Options(ignore=['b']),
  )
  assert not {'churn', 'c', 'segment'} & set(schema.inputs)


def test_names_of_columns_that_occur_twice():
  frame = pd.DataFrame(FRAME)
  frame.columns = ['city', 'age', 'churn', 'age', 'value']
  with pytest.raises(
    ValueError, match="names of columns must differ, found more than one 'age'"
  ):
    tabular.infer(frame, 'churn')


@pytest.mark.parametrize(
  'frame, message',
  [
    ({}, 'expected a table, found one without columns'),
    (pd.DataFrame(), 'found one without columns'),
    ({'age': [], 'churn': []}, 'expected a table with rows, found none'),
    (pd.DataFrame(FRAME)[:0], 'expected a table with rows, found none'),
    (pd.DataFrame([[1, 2]], columns=[1.5, 'churn']), 'names of columns must be strings or integers, found 1.5'),
    (pd.DataFrame([[1, 2]], columns=[('a', 'b'), ('a', 'c')]), r"must be strings or integers, found \('a', 'b'\)"),
    ([1, 2], 'a table must be a DataFrame or a dict of columns, found list'),
    ({'age': [1, 2], 'churn': [1, 2, 3]}, "as many rows, found 2 in column 'age' and 3 in 'churn'"),
    ({'age': 'young', 'churn': [1]}, "column 'age' must be a list or an array, found str"),
    ({'age': {1, 2}, 'churn': [1, 2]}, "column 'age' must be a list or an array, found set"),
    ({'age': 3, 'churn': [1]}, "column 'age' must be a list or an array, found int"),
    ({'age': np.ones((2, 2)), 'churn': [1, 2]}, r"column 'age' must be a list or \[N\] array"),
    ({'churn': ['no', 'yes'] * 30}, "no column is left to predict from; left out are none"),
    ({'churn': ['no', 'yes'] * 30, 'x': [1] * 60}, "no column is left to predict from; left out are 'x'"),
  ],
)  # fmt: skip
def test_tables_that_are_none(frame, message):
  with pytest.raises(ValueError, match=message):
    tabular.infer(frame, 'churn')


@pytest.mark.parametrize(
  'others, message',
  [
    ({'churn_probability': 'regression'}, "predictions of 'churn' and 'churn_probability' would both have a column 'churn_probability'"),
    ({'x': ('multilabel', ('churn', 'second'))}, "would both have a column 'churn'"),
  ],
)  # fmt: skip
def test_names_of_predictions_that_clash(others, message):
  frame = {
    **FRAME,
    'churn_probability': FRAME['value'],
    'second': RNG.permutation(FRAME['churn']),
  }
  with pytest.raises(ValueError, match=message):
    tabular.infer(frame, {'churn': 'binary', **others})


def test_a_new_table_that_lacks_columns():
  schema = _infer()
  columns = {'City': [1], 'age': [2], 'segment': ['a']}
  with pytest.raises(
    ValueError,
    match=r"lacks the columns 'city', 'value'; did you mean 'City'\? Else add them",
  ):
    checks.check_columns(schema, columns)
  del columns['City']
  with pytest.raises(
    ValueError,
    match=r"'city', 'value': add them, or train without them \(ignore\); found "
    "'age', 'segment'$",
  ):
    checks.check_columns(schema, columns)
  # What is left out, targets and weights are not needed.
  checks.check_columns(schema, {**FRAME, 'churn': None})


def test_a_new_table_with_texts_where_numbers_were():
  fitted = tables.fit({}, {'age': FRAME['age']})
  with pytest.raises(
    RowError, match="column 'age' must hold numbers; found 'old' in row 1"
  ):
    fitted.encode({'age': [40, 'old']})


def test_a_book_in_a_cell_is_neither_copied_nor_shown():
  """The test's book has 64 MB; a book of 2 GB takes no more memory."""
  book = 'x' * 2**26
  columns = {
    'note': [book, *FRAME['segment'][1:]],
    'age': [book, *FRAME['age'][1:].tolist()],
    'churn': FRAME['churn'],
  }
  tracemalloc.start()
  try:
    schema = tabular.infer(columns, 'churn')
    rows = tabular.describe(schema, columns)
    tabular.encode_labels(schema, columns)
    with pytest.raises(ValueError, match='xxx') as error:
      tabular.infer(columns, 'churn', tabular.Options(numbers=['age']))
    with pytest.raises(ValueError, match='xxx') as another:
      tabular.infer(columns, {'note': 'regression'})
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert peak < 2**22
  assert schema.inputs['age'].kind == 'category'
  assert all(len(str(one)) < 300 for one in (*rows, error.value, another.value))


def test_hints_are_short():
  assert hints.listed(list('abcdefghijklmnop')).endswith("'l' and 4 more")
  assert hints.nearest('zip', ['q' * 99]) == f'; there are {"q" * 37 + "..."!r}'
