"""The schema as data: what is inferred, written, edited and read again."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from lplmtl import tabular
from lplmtl.columns import Factor
from lplmtl.tabular import Input, Schema, Target, facts, preparation

N = 80
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
  {
    'row': np.arange(N),
    'city': RNG.choice(['Oslo', 'Rome', 'Lima'], N),
    'age': np.where(RNG.random(N) < 0.1, np.nan, RNG.integers(18, 80, N)),
    'signup': pd.to_datetime('2024-01-01') + pd.to_timedelta(RNG.integers(0, 500, N), 'D'),
    'member': RNG.random(N) < 0.5,
    'same': 'x',
    'weight': RNG.random(N),
    'churn': RNG.choice(['no', 'yes', None], N),
    'segment': RNG.choice([1.0, 2.0, 3.0, np.nan], N),
    'value': RNG.normal(100, 20, N),
  }
)  # fmt: skip
TARGETS = ['churn', 'segment', 'value']


@pytest.fixture(scope='module')
def schema():
  return tabular.infer(FRAME, TARGETS, tabular.Options(weight='weight'))


def test_inputs(schema):
  assert {name: one.kind for name, one in schema.inputs.items()} == {
    'row': 'identifier',
    'city': 'category',
    'age': 'number',
    'signup': 'date',
    'member': 'boolean',
    'same': 'constant',
  }
  assert schema.names('number') == ('age',)


def test_targets(schema):
  churn, segment, value = schema.targets.values()
  assert (churn.kind, churn.classes, churn.positive) == (
    'binary',
    ('no', 'yes'),
    'yes',
  )
  assert (segment.kind, segment.classes) == ('multiclass', (1, 2, 3))
  assert value.kind == 'regression'
  assert value.mean == pytest.approx(FRAME['value'].mean())
  assert value.std == pytest.approx(FRAME['value'].std(ddof=0))


def test_a_dict_of_columns_gives_the_same(schema):
  for columns in (
    {name: FRAME[name].to_numpy() for name in FRAME},
    {name: FRAME[name].tolist() for name in FRAME},
    {name: Factor(*_factorized(FRAME[name])) for name in FRAME},
  ):
    assert (
      tabular.infer(columns, TARGETS, tabular.Options(weight='weight'))
      == schema
    )


def _factorized(series):
  codes, values = pd.factorize(series, use_na_sentinel=False)
  return codes, np.asarray(values)


def test_json_survives_a_file(schema):
  text = json.dumps(schema.to_json())
  assert Schema.from_json(json.loads(text)) == schema
  # Short enough to be edited by hand: a field that says nothing is left out.
  assert schema.to_json()['inputs']['city'] == {'kind': 'category'}


def test_json_keeps_columns_that_are_numbers():
  frame = {
    np.int64(0): FRAME['city'],
    1: FRAME['age'],
    'churn': FRAME['churn'],
    3: FRAME['value'],
  }
  made = tabular.infer(
    frame, {'churn': 'binary', 'worth': ('regression', (3,))}
  )
  assert list(made.inputs) == [0, 1]
  assert made.targets['worth'].columns == (3,)
  assert Schema.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_minimal_schema_written_by_hand():
  data = {
    'inputs': {'age': {'kind': 'number'}},
    'targets': {'value': {'kind': 'regression'}, 'churn': {'kind': 'binary'}},
  }
  made = tabular.complete(Schema.from_json(data), FRAME)
  assert made.targets['value'].std > 0
  assert made.targets['churn'].positive == 'yes'
  assert tabular.complete(made, FRAME) == made


@pytest.mark.parametrize(
  'edit, message',
  [
    (lambda d: d['inputs']['age'].update(kind='numeric'), "input 'age': the kind of an input must be one of category.*'numeric'"),
    (lambda d: d['targets']['churn'].update(kind='class'), "target 'churn': the kind of a target must be.*'class'"),
    (lambda d: d['inputs']['age'].update(logs=True), "input 'age': there is no field 'logs'; did you mean 'log'?"),
    (lambda d: d['inputs']['age'].update(log='yes'), "input 'age': log must be true or false, found 'yes'"),
    (lambda d: d['inputs'].update(age='number'), "input 'age' must be an object"),
    (lambda d: d['inputs'].update(age={}), "input 'age' lacks its kind"),
    (lambda d: d.update(weights='w'), "there is no field 'weights'; did you mean 'weight'"),
    (lambda d: d.pop('targets'), "lacks 'targets'"),
    (lambda d: d.update(inputs='age'), 'must be objects'),
    (lambda d: d.update(missing='?'), "missing must be a list of texts, found '\\?'"),
    (lambda d: d.update(min_count=0), 'min_count must be at least 1, found 0'),
    (lambda d: d.update(num_buckets=1), 'num_buckets must be at least 2'),
    (lambda d: d.update(num_buckets=2**31), 'num_buckets must be at most 2,147,483,647'),
    (lambda d: d.update(min_count='2'), "min_count must be a whole number, found '2'"),
    (lambda d: d['targets']['value'].update(std=0), "target 'value': std must be above 0, found 0"),
    (lambda d: d['targets']['value'].update(mean='1'), "mean must be a number or null, found '1'"),
    (lambda d: d['targets']['value'].update(mean=float('nan')), 'mean must be finite, found nan'),
    (lambda d: d['targets'].update(visits={'kind': 'count', 'mean': 0}), "'visits': mean must be above 0, found 0"),
    (lambda d: d['inputs'].update(city={'kind': 'category', 'log': True}), "'city': log is for a number, found a category with it"),
    (lambda d: d['inputs'].update(age={'kind': 'number', 'format': '%Y'}), "'age': format is for a date, found a number"),
    (lambda d: d.update(inputs=['age', 'city']), 'must be objects'),
    (lambda d: d.update(task_weights=['weight']), 'task_weights must be an object'),
    (lambda d: d.update(task_weights={'churn': ['weight']}), 'churn must be the name of a column, found .*weight'),
    (lambda d: d.update(split=['part']), r"split must be the name of a column, found \['part'\]"),
    (lambda d: d.update(group=None), 'group must be the name of a column, found None'),
    (lambda d: d['targets']['churn'].update(classes=[None]), 'classes must be texts, numbers'),
  ],
)  # fmt: skip
def test_edits_that_are_mistakes(schema, edit, message):
  data = json.loads(json.dumps(schema.to_json()))
  edit(data)
  with pytest.raises(ValueError, match=message):
    Schema.from_json(data)


@pytest.mark.parametrize(
  'edit, message',
  [
    (lambda d: d['inputs'].update(agee=d['inputs'].pop('age')), "lacks the column 'agee'; did you mean 'age'"),
    (lambda d: d['targets']['churn'].update(classes=['no', 'maybe'], positive='maybe'), "'churn' has 'yes' in .* rows, which is not one of its classes 'no', 'maybe'"),
    (lambda d: d['targets']['churn'].update(classes=['no', 'yes', 'maybe']), 'must have two classes, found 3'),
    (lambda d: d['targets']['churn'].update(classes=['no', 'yes', 'no']), "classes of target 'churn' must differ"),
    (lambda d: d['targets']['churn'].update(positive='y'), "positive class of target 'churn' must be one of 'no', 'yes'; found 'y'"),
    (lambda d: d['targets']['churn'].update(columns=['churm']), "target 'churn': there is no column 'churm'; did you mean 'churn'"),
    (lambda d: d['targets']['churn'].update(columns=['churn', 'member']), 'has one column'),
    (lambda d: d['inputs'].update(churn={'kind': 'category'}), "column 'churn' is target 'churn' and cannot be an input"),
    (lambda d: d.update(inputs={'same': {'kind': 'constant'}}), "no column is left to predict from; left out are 'same'"),
    (lambda d: d.update(targets={}), 'at least one target, found none'),
    (lambda d: d.update(weight='wait'), "weight: there is no column 'wait'; did you mean 'weight'"),
    (lambda d: d.update(task_weights={'churm': 'weight'}), "task_weights: there is no target 'churm'; did you mean 'churn'"),
    (lambda d: d['targets']['churn'].update(kind='regression'), "target 'churn' must hold numbers, found '(no|yes)' in"),
  ],
)  # fmt: skip
def test_edits_that_do_not_fit_the_table(schema, edit, message):
  data = json.loads(json.dumps(schema.to_json()))
  edit(data)
  with pytest.raises(ValueError, match=message):
    tabular.complete(Schema.from_json(data), FRAME)


def test_a_dict_is_no_schema():
  for use in (
    tabular.train,
    lambda frame, schema: tabular.complete(schema, frame),
  ):
    with pytest.raises(ValueError, match='must be a Schema.*found dict'):
      use(FRAME, {'a': 1})


def test_columns_with_a_part_of_their_own_are_no_inputs(schema):
  assert 'weight' not in schema.inputs
  options = tabular.Options(time='signup', group='city', split='member')
  assert list(tabular.infer(FRAME, 'churn', options).inputs) == [
    'row', 'age', 'same', 'weight', 'segment', 'value',
  ]  # fmt: skip
  options = dataclasses.replace(options, dates=['signup'])
  assert tabular.infer(FRAME, 'churn', options).inputs['signup'].kind == 'date'


def test_options_reach_the_schema():
  options = tabular.Options(
    missing=('x',),
    min_count=3,
    max_vocabulary=5,
    num_buckets=7,
    task_weights={'churn': 'weight'},
  )
  made = tabular.infer(FRAME, 'churn', options)
  assert (
    made.missing,
    made.min_count,
    made.max_vocabulary,
    made.num_buckets,
  ) == (('x',), 3, 5, 7)
  assert made.task_weights == {'churn': 'weight'}
  assert made.inputs['same'].kind == 'constant'


@pytest.mark.parametrize(
  'options, message',
  [
    ({'categories': ['town', 'city']}, "categories: there is no column 'town'"),
    ({'numbers': ['agee']}, "numbers: there is no column 'agee'; did you mean 'age'"),
    ({'numbers': 'age'}, "numbers must be names of columns, found 'age'"),
    ({'numbers': ['age'], 'categories': ['age']}, "'age' cannot be both category and number"),
    ({'categories': ['churn']}, r"column 'churn' holds labels and cannot be an input \(category\)"),
    ({'group': 'town'}, "group: there is no column 'town'"),
    ({'positive': {'chrn': 'yes'}}, "positive: there is no target 'chrn'; did you mean 'churn'"),
    ({'positive': {'churn': 'da'}}, "must be one of 'no', 'yes'; found 'da'"),
    ({'positive': {'value': 1}}, "positive names 'value', which is not a binary target"),
  ],
)  # fmt: skip
def test_options_that_do_not_fit(options, message):
  with pytest.raises(ValueError, match=message):
    tabular.infer(FRAME, ['churn', 'value'], tabular.Options(**options))


def test_describe(schema):
  rows = {row['column']: row for row in tabular.describe(schema, FRAME)}
  assert list(rows) == list(FRAME)
  kinds = {name: row['kind'] for name, row in rows.items()}
  assert kinds['churn'] == 'target (binary)'
  assert kinds['weight'] == 'weight'
  assert rows['row']['note'] == 'whole numbers that count the rows'
  assert rows['same']['note'] == "every row has 'x'"
  assert rows['age']['missing'] == pytest.approx(FRAME['age'].isna().mean())
  assert rows['city']['distinct'] == 3
  assert rows['city']['example'] == FRAME['city'].mode()[0]
  json.dumps(list(rows.values()))


def test_describe_says_which_rows_it_has_looked_at():
  n = facts.MAX_ROWS + 1
  schema = Schema({'amount': Input('number'), 'city': Input('category')}, {})
  # All rows of a few texts are counted, whose ids are enough.
  city = Factor(np.arange(n) % 3, np.array([*'abc']))
  frame = {'amount': np.arange(n) / 8, 'city': city}
  amount, city = tabular.describe(schema, frame)
  assert amount['sampled'] and amount['distinct'] == facts.MAX_ROWS
  assert not city['sampled'] and city['distinct'] == 3


def test_describe_cuts_what_is_long_and_names_what_is_hashed():
  schema = Schema(
    {
      'note': Input('text'),
      'city': Input('category', num_buckets=64),
      'amount': Input('number', log=True),
    },
    {'churn': Target('binary')},
    max_vocabulary=2,
  )
  assert Schema.from_json(schema.to_json()) == schema
  fitted = preparation.fit_tables(
    {'city': [*'abc'], 'amount': [1, 2, 3]}, schema, 0
  )
  assert fitted.hashed == {'city': 64}
  with pytest.raises(
    ValueError, match='num_buckets is for a category, found a'
  ):
    Input('number', num_buckets=64)
  frame = {'note': ['x' * 10**7] * 3, 'city': ['a', 'b', 'c'], 'amount': [1, 2, 3], 'churn': [0, 1, None], 'other': [1, 2, 3]}  # fmt: skip
  note, city, amount, _, other = tabular.describe(schema, frame)
  assert len(note['example']) == 40
  assert city['note'] == 'more than 2 values: hashed into 64 buckets'
  assert amount['note'] == 'its logarithm is used'
  assert (other['kind'], other['note']) == ('ignored', 'not in the schema')
