"""Rows of every kind are read as arrays, or refused in one line."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.sparse

import lplmtl
from lplmtl import balancing, resume, tasks
from lplmtl.training import arrays, checks, programs, steps

TASKS = (tasks.binary('a'), tasks.regression('b'))
X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
A = np.array([0, 1, 1, 0, 1, 0])
B = X[:, 1]


def _read(features=X, where=None, weights=None, **labels):
  batch = lplmtl.Batch(features, {'a': A, 'b': B, **labels}, where, weights)
  return arrays.read_batch(TASKS, batch, 'data')


@pytest.mark.parametrize(
  'column',
  [
    pd.Series(A, index=range(10, 16)),
    pd.Series(A, dtype='Int64'),
    pd.Series(A, dtype='UInt8'),
    pd.Series(A, dtype='Float32'),
    pd.Series(A == 1, dtype='boolean'),
    pd.Series(A == 1),
    pd.Index(A),
    np.matrix(A).A1,
    np.ma.masked_array(A),
    jnp.asarray(A, jnp.bfloat16),
    A.astype(np.float16),
    A.astype(jnp.bfloat16),
  ],
)
def test_columns_as_labels(column):
  found = _read(a=column).labels['a']
  assert type(found) is np.ndarray or isinstance(found, jax.Array)
  np.testing.assert_array_equal(np.asarray(found, np.float64), A)
  # In a dtype that JAX takes.
  assert found.dtype == jnp.asarray(found).dtype


def test_columns_of_pandas_everywhere():
  missing = pd.Series([0.5, None, 1, 2, 3, None], dtype='Float64')
  found = _read(
    features={'x': X, 'one': pd.Series(A)},
    b=missing,
    where={'b': missing.notna()},
    weights=pd.Series(A + 1, dtype='Int64'),
  )
  assert found.features['one'].shape == (6,)
  assert found.where['b'].dtype == bool and found.where['b'].sum() == 4
  assert found.weights.tolist() == (A + 1).tolist()
  with pytest.raises(ValueError, match="labels of task 'b' .* mark the rows"):
    _read(b=missing)


def test_weights_by_task():
  found = _read(where={'b': A > 0}, weights={'a': A, 'b': pd.Series(A + 1)})
  assert found.weights['a'].tolist() == A.tolist()
  assert found.weights['b'].tolist() == (A + 1).tolist()
  # Rows that are left out for one task may be the only ones of another.
  assert _read(where={'b': A == 0}, weights={'a': A}).weights.keys() == {'a'}
  assert _read(weights={}).weights is None


def test_dtypes_that_jax_takes():
  """Rounded once, on the host; nothing is refused that is under a mask."""
  known = np.arange(6) > 0
  wide = np.where(known, B.astype(float), 1e300)
  counts = np.where(known, A, 2**40)
  found = _read(
    X.astype(np.float64), {'a': known, 'b': known}, a=counts, b=wide
  )
  assert found.features.dtype == found.labels['b'].dtype == np.float32
  assert found.labels['a'].dtype == np.int32
  np.testing.assert_array_equal(found.features, X)


def _text(kind):
  return pd.Series(['no', 'yes'] * 3, dtype=kind)


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'a': _text('category')}, r"labels\['a'\] holds categories: .* .cat.codes"),
    ({'a': _text(object)}, r"labels\['a'\] must hold numbers, found object"),
    ({'a': pd.Series(A, dtype='timedelta64[s]')}, 'must hold numbers, found tim'),
    ({'a': A + 0j}, r"labels\['a'\] must hold numbers, found complex"),
    ({'a': pd.DataFrame({'a': A})}, r'is a table \(DataFrame\)'),
    ({'a': np.ma.masked_array(A, A > 0)}, 'has masked values'),
    ({'a': list(A)}, r"labels\['a'\]\[0\] must be part of an array, found int64"),
    (
      {'where': {'a': list(A > 0)}},
      r"where\['a'\]\[0\] must be part of an array, found bool.*of a list",
    ),
    ({'a': None}, "no label for task 'a'"),
    ({'b': A.astype(np.int64) << 40}, "task 'b' in data are numbers from 0 to"),
    ({'b': B.astype(np.float64) * 1e300}, 'are numbers too large for float32'),
    ({'features': pd.DataFrame(X)}, r'data.features is a table \(DataFrame\)'),
    ({'features': scipy.sparse.csr_matrix(X)}, 'is sparse .csr_matrix'),
    ({'features': X[:, :0]}, r'one row and one column, found shape \(6, 0\)'),
    ({'features': X * np.inf}, 'data.features holds values that are not fi'),
    (
      {'features': X.astype(float) * 1e40},
      'data.features holds numbers too large for float32: scale',
    ),
    (
      {'features': {'id': np.arange(6) << 33}},
      r"data.features\['id'\] holds numbers from 0 to 42949672960, too large",
    ),
    ({'weights': np.full(6, np.inf)}, r'weights must be \[6\] numbers >= 0, not'),
    ({'weights': np.full(6, 1e38)}, 'float32'),
    ({'weights': np.full(6, 1e-45)}, 'not all of them 0'),
    ({'where': {'a': pd.Series(A)}}, r"data.where\['a'\] must be \[N\] bool"),
    ({'where': A > 0}, 'data.where must be a dict'),
    (
      {'where': {'b': A > 0}, 'weights': (A == 0).astype(np.float32)},
      "every row of data with a label for task 'b' has weight 0",
    ),
    ({'weights': {'c': A}}, r"data.weights names \['c'\], .* are \['a', 'b'\]"),
    ({'weights': {'b': A[:5]}}, r"weights\['b'\] must have the 6 rows"),
    ({'weights': {'b': X}}, r"weights\['b'\] must be \[6\] numbers .* \(6, 3\)"),
    ({'weights': {'b': A - 1}}, r"weights\['b'\] must .* >= 0, .* from -1 to 0"),
    ({'weights': {'a': A / 0.5 * np.nan}}, r"weights\['a'\] must .* from nan"),
    ({'weights': {'a': list(A)}}, r"weights\['a'\]\[0\] must be part of an array"),
    (
      {'where': {'b': A > 0}, 'weights': {'b': (A == 0).astype(np.float32)}},
      "every row of data with a label for task 'b' has weight 0",
    ),
  ],
)  # fmt: skip
def test_rows_that_are_refused(change, complaint):
  with pytest.raises(ValueError, match=complaint):
    _read(**change)


def test_labels_that_are_no_dict():
  with pytest.raises(ValueError, match='data.labels must be a dict .* ndarray'):
    arrays.read_batch(TASKS, lplmtl.Batch(X, A), 'data')


@pytest.mark.parametrize(
  'found, complaint',
  [
    (TASKS[0], r'a tuple of lplmtl.Task, found Task: write \(task,\)'),
    ('a', r'tuple of lplmtl.Task, found str'),
    (('a', 'b'), "such as tasks.binary.*; found 'a' in it"),
    ((TASKS[0], TASKS[0]), r"distinct names.* found \['a', 'a'\]"),
    ((), r'at least one; found \[\]'),
  ],
)
def test_tasks_that_are_none(found, complaint):
  with pytest.raises(ValueError, match=complaint):
    checks.check_model_tasks(types.SimpleNamespace(tasks=found))


def test_tasks_are_those_of_the_model():
  model = lplmtl.SharedBottom(TASKS)
  rates = {'rate': np.ones(3)}

  def make(settings):
    assert isinstance(settings['rate'], jax.core.Tracer)
    return model

  assert programs.model_tasks(model, None) == TASKS
  assert programs.model_tasks(make, rates) == TASKS
  with pytest.raises(ValueError, match='field `tasks`.* SimpleNamespace'):
    programs.model_tasks(types.SimpleNamespace(init=len), None)


def test_the_order_of_arguments_before_tasks_were_the_models():
  with pytest.raises(ValueError, match='from model.tasks'):
    lplmtl.fit(
      jax.random.key(0), lplmtl.SharedBottom(TASKS), TASKS, optax.adam(0.1),
      balancing.equal(),
    )  # fmt: skip


def test_features_that_do_not_fit_the_model():
  model = lplmtl.SharedBottom(TASKS)
  batch = lplmtl.Batch(X, {})
  for features, found in ((X[:, 0], r'\[N\]'), ({'x': X}, "{'x': '.N, 3.'}")):
    with pytest.raises(ValueError, match=rf'one array \[N, D\] .* {found}: x'):
      checks.check_batches(model, lplmtl.Batch(features, {}), None)
  for other in (X[:, :2], {'x': X}):
    with pytest.raises(ValueError, match=r'like those of data, \[N, 3\]'):
      checks.check_batches(model, batch, lplmtl.Batch(other, {}))
  # A model of one's own reads what it may, in other numbers too.
  own = types.SimpleNamespace(tasks=TASKS)
  column = lplmtl.Batch(A, {})
  checks.check_batches(own, column, column._replace(features=X[:, 0]))


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'optimizer': balancing.equal()}, 'the order is fit.*balancer as the optim'),
    ({'balancer': optax.adam(0.1)}, 'or an optimizer as the balancer'),
    ({'model': lplmtl.MMoE}, r'its tasks, MMoE\(tasks\); found the class'),
    ({'key': jax.random.split(jax.random.key(0), 0)}, 'or a vector of them; f'),
    (
      {'balancer': types.SimpleNamespace(init=len, update=len)},
      'a lplmtl.Balancer.init, update. or .* found SimpleNamespace',
    ),
    (
      {'hyperparams': {'x': 'fast'}, 'optimizer': optax.adam},
      r"hyperparams\['x'\] must hold numbers, found <U4",
    ),
  ],
)  # fmt: skip
def test_arguments_in_the_place_of_others(change, complaint):
  arguments = {
    'key': jax.random.key(0), 'model': lplmtl.SharedBottom(TASKS),
    'optimizer': optax.adam(0.1), 'balancer': balancing.equal(),
    'hyperparams': None, **change,
  }  # fmt: skip
  with pytest.raises(ValueError, match=complaint):
    checks.check_arguments(**arguments)


@pytest.mark.parametrize('depth', [0, 1])
def test_ids_outside_of_their_vocabulary(depth):
  """Inside jit they would be ids of another column."""
  encoder = lplmtl.TabularEncoder((3, 5), embed_dim=2)
  encoder = lplmtl.CrossNetwork(encoder) if depth else encoder
  model = lplmtl.SharedBottom(TASKS, encoder=encoder)
  good = {'categories': np.tile([2, 4], (6, 1)), 'numeric': X}

  def check(found, validation=None):
    checks.check_batches(model, lplmtl.Batch(found, {}), validation)

  check(good)
  for value, found in ((3, '3 to 3'), (-1, '-1 to -1')):
    bad = {**good, 'categories': np.tile([value, 0], (6, 1))}
    with pytest.raises(
      ValueError,
      match=rf"data.features.'categories'.* 0 to 2 in column 0, found {found}",
    ):
      check(bad)
  with pytest.raises(ValueError, match='validation.features.*in column 0'):
    check(good, lplmtl.Batch(bad, {}))
  with pytest.raises(ValueError, match='for a TabularEncoder; found an array'):
    check(X)
  with pytest.raises(ValueError, match=r"TabularEncoder; found \['ids'\]"):
    jax.eval_shape(model.init, jax.random.key(0), {'ids': good['categories']})


class _Own(nn.Module):
  """Returns what it is told to."""

  returned: str

  @nn.compact
  def __call__(self, x, *, train=False):
    if self.returned == 'nothing':
      return {'a': x[:, :1], 'b': x[:, :1]}, {}
    found = {'a': nn.Dense(1)(x), 'b': nn.Dense(1)(x)}
    return {
      'one': found,
      'array': (found['a'], {}),
      'None': (found, None),
      'penalty': (found, {'penalty': jnp.ones(3)}),
    }[self.returned]


@pytest.mark.parametrize(
  'returned, complaint',
  [
    ('one', 'a model must return .* two dicts; found dict'),
    ('array', r'two dicts; found \([A-Za-z]*Tracer, dict\)'),
    ('None', r'found \(dict, NoneType\)'),
    ('penalty', r"aux\['penalty'\] .* must be a scalar, found shape \(3,\)"),
    ('nothing', '_Own has no parameters to train'),
  ],
)
def test_models_that_return_something_else(returned, complaint):
  model = _Own(returned)
  args = model, TASKS, optax.sgd(0.1), balancing.equal()
  batch = lplmtl.Batch(X, {'a': A, 'b': B})

  def run():
    state = steps.init_state(jax.random.key(0), *args, X)
    return lplmtl.make_train_step(*args)(state, batch)

  with pytest.raises(ValueError, match=complaint):
    jax.eval_shape(run)


def test_metrics_that_are_no_numbers():
  one = types.SimpleNamespace(shape=(2,))
  checks.check_metrics({'a': {'auc': one}})
  each = types.SimpleNamespace(shape=(2, 6))
  with pytest.raises(ValueError, match="'auc' of task 'a' must be a scalar, f"):
    checks.check_metrics({'a': {'auc': each}})


def test_functions_of_settings_that_return_no_part():
  with pytest.raises(ValueError, match='must return a model, .* found None'):
    programs.build((lambda h: None,), {})
  with pytest.raises(ValueError, match=r"'rat'.* hold \['rate'\]"):
    programs.build((lambda h: optax.sgd(h['rat']),), {'rate': 0.1})


def test_helpers_that_are_none():
  with pytest.raises(ValueError, match="jax.local_devices.*found 'cpu'"):
    checks.check_helpers(None, None, 'cpu')
  with pytest.raises(ValueError, match="resume.Checkpoints.*; found 'folder'"):
    checks.check_helpers('folder', None, None)
  with pytest.raises(ValueError, match='resume.Checkpoints.*; found <class'):
    checks.check_helpers(resume.Checkpoints, None, None)
  with pytest.raises(ValueError, match=r'jax.local_.* found \[\]'):
    checks.check_helpers(None, None, [])
  with pytest.raises(ValueError, match='on_epoch must be a function, found 3'):
    checks.check_helpers(None, 3, None)


def test_fit_reads_columns_and_low_precision():
  """bfloat16 features, and pandas labels with missing ones, train."""
  labels = {
    'a': pd.Series(A, dtype='Int64'),
    'b': pd.Series([0.5, None, 1, 2, 3, None], dtype='Float64'),
  }
  data = lplmtl.Batch(
    jnp.asarray(X, jnp.bfloat16), labels, {'b': labels['b'].notna()}
  )
  model = lplmtl.MMoE(
    TASKS, expert=lplmtl.MLP((4,)), num_experts=2, tower=lplmtl.MLP(())
  )
  result = lplmtl.fit(
    jax.random.key(0), model, optax.adam(0.1), balancing.equal(), data, batch_size=6, num_epochs=1,
  )  # fmt: skip
  assert np.isfinite(result.history[0]['losses']).all()
  assert {x.dtype for x in jax.tree.leaves(result.params)} == {jnp.dtype('f4')}
