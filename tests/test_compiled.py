"""Programs that are compiled once, however often `fit` is called."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, losses, tables, tabular, training
from lplmtl.tabular import build
from lplmtl.training import compiled, parallel
from tests import contracts

ROWS = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)


def _data(num_rows=48):
  x = ROWS[:num_rows]
  labels = {'b': (x[:, 0] > 0).astype(np.int32), 'a': x[:, 1] + 1}
  return lplmtl.Batch(x, labels)


def _model(width=4):
  """All parts made anew, as by a function that is called for each fold."""
  # Without metrics, which take longer to compile than everything else.
  todo = (
    lplmtl.Task('b', losses.binary_cross_entropy),
    lplmtl.Task('a', losses.half_squared_error),
  )
  return lplmtl.SharedBottom(
    todo, bottom=lplmtl.MLP((width,)), tower=lplmtl.MLP(())
  )


def _fit(key=0, num_rows=48, width=4, scale=1.0, **changes):
  arguments = {
    # A function made anew, of which one number may differ.
    'optimizer': lambda h: optax.sgd(scale * h, momentum=0.9),
    'hyperparams': jnp.float32(1e-2),
    'validation': _data(16),
    'batch_size': 8,
    'num_epochs': 1,
    **changes,
  }
  return lplmtl.fit(
    jax.random.key(key),
    _model(width),
    balancer=balancing.uncertainty(),
    data=_data(num_rows),
    **arguments,
  )


@pytest.fixture
def count(num_compiled):
  """Calls a function, and returns how many programs it compiled."""
  compiled.clear()
  return num_compiled


@pytest.mark.slow
def test_equal_fits_compile_once(count):
  found = []

  def fit(**changes):
    found.append(_fit(**changes))

  assert count(fit) >= 3
  # Neither the key nor the number of epochs is part of a program.
  assert count(fit, key=1, num_epochs=2, patience=1) == 0
  assert count(fit) == 0
  contracts.assert_trees_equal(found[0].params, found[-1].params)
  # One number that a function refers to is part of it, but changes only the
  # steps; so does the number of training rows.
  assert count(fit, scale=0.0) == 1
  old, new = (jax.tree.leaves(found[i].params) for i in (0, -1))
  assert not any(map(np.array_equal, old, new))
  assert count(fit, num_rows=41) == 1
  assert count(fit, num_rows=47) == 0  # as many steps, and as many batches
  assert count(fit, width=5) >= 3


@pytest.mark.slow
def test_many_tables_are_traced_once():
  """With the bits of single calls, whatever the sizes of the tables."""
  num_traced = 0

  def make(rate):
    nonlocal num_traced
    num_traced += 1
    return optax.sgd(rate, momentum=0.9)

  def runs(first_key, *sizes):
    for i, size in enumerate(sizes):
      yield jax.random.key(first_key + i), _data(size), _data(16)

  method = _model(), make, balancing.uncertainty()
  settings = {
    'hyperparams': jnp.float32(1e-2), 'batch_size': 8, 'num_epochs': 2
  }  # fmt: skip
  found = list(training.fit_each(runs(0, 48, 48, 33), *method, **settings))
  in_total = num_traced
  num_traced = 0
  for result, (key, *rows) in zip(found, runs(0, 48, 48, 33), strict=True):
    alone = lplmtl.fit(
      key, *method, rows[0], validation=rows[1], **settings
    )  # fmt: skip
    contracts.assert_trees_equal(result.params, alone.params)
    contracts.assert_trees_equal(result.history, alone.history)
  # The first state once, and the steps once for each size.
  assert (in_total, num_traced) == (3, 6)


def test_many_tables_are_checked_when_they_are_due():
  key = jax.random.key(0)
  method = _model(), optax.sgd(1e-2), balancing.equal()
  assert list(training.fit_each((), *method)) == []
  runs = training.fit_each([(key, _data(), _data())], *method)
  with pytest.raises(ValueError, match='batch_size'):
    next(runs)  # of 48 rows


@pytest.mark.slow
def test_nothing_else_is_kept():
  """Neither rows nor models nor what they refer to outlive a call."""
  compiled.clear()
  data = jax.device_put(_data())
  optimizer, model = optax.sgd(1e-2), _model()
  watched = [
    weakref.ref(x) for x in (optimizer.update, model, *jax.tree.leaves(data))
  ]
  lplmtl.fit(
    jax.random.key(0), model, optimizer, balancing.equal(), data,
    validation=data, batch_size=8, num_epochs=1,
  )  # fmt: skip
  assert compiled.num_kept() == 3
  del data, optimizer, model
  gc.collect()
  assert [ref() for ref in watched] == [None] * len(watched)


def test_predictions_compile_once_for_equal_models(count):
  x = ROWS[:20]
  params = contracts.random_params(_model(), x)

  def predict(scale=1.0):
    scaled = jax.tree.map(lambda w: np.float32(scale) * w, params)
    lplmtl.predict(_model(), scaled, x, chunk_size=8)

  predict()
  assert count(predict, scale=2.0) == 0


def test_folds_of_a_table_share_an_encoder():
  """Though their vocabularies differ by a few rare values."""
  settings = tabular.Settings(num_crosses=0)
  sizes, encoders = [], []
  for num_cities in (90, 94):
    rows = {'city': [f'town {i}' for i in range(num_cities)]}
    table = tables.fit(rows, {})
    sizes += table.num_categories
    encoders.append(build.make_encoder(settings, table))
  assert sizes[0] < sizes[1]
  assert encoders[0] == encoders[1]
  assert sizes[1] <= encoders[0].num_categories[0] <= 1.25 * sizes[1]


def _mesh():
  return parallel.make_mesh(1)


def _compiled(function, *arguments, name='run', mesh=None):
  lowered = jax.jit(function).lower(*arguments)
  return compiled.compile_once(name, lowered, mesh or _mesh())


def test_programs_that_differ_in_one_constant():
  """One number among many, which a text could leave out."""
  compiled.clear()
  table = np.arange(5000, dtype=np.float32)
  changed = np.where(table == 2500, 0, table)
  x = jnp.zeros(5000)
  for values in (table, changed, table, jnp.array(changed), jnp.array(table)):
    found = _compiled(lambda x, values=values: x + values, x)(x)
    np.testing.assert_array_equal(found, values)


def test_calls_back_to_python_are_not_mixed_up():
  """Their text is the same whichever function they call."""
  compiled.clear()
  shape = jax.ShapeDtypeStruct((), np.float32)

  def call(add):
    return lambda x: jax.pure_callback(lambda y: y + add, shape, x)

  x = jnp.zeros(())
  programs = [_compiled(call(np.float32(add)), x) for add in (1, 2)]
  assert [float(program(x)) for program in programs] == [1, 2]


def test_what_the_text_of_a_program_leaves_out():
  """Names in pytrees, kinds of keys, compiler options, devices."""
  compiled.clear()
  found = [
    _compiled(lambda tree: tree, {'a': 1.0}),
    _compiled(lambda tree: tree, {'b': 1.0}),
    _compiled(lambda tree: tree, {'b': 1.0}, name='other'),
    _compiled(lambda tree: {'a': tree['b']}, {'b': 1.0}),
    _compiled(lambda key: key, jax.random.key(0)),
    _compiled(lambda key: key, jax.random.key_data(jax.random.key(0))),
  ]
  assert len({id(program) for program in found}) == len(found)
  assert found[0]({'a': 2.0}) == {'a': 2.0}
  assert found[0] is _compiled(lambda tree: tree, {'a': 3.0})


def test_the_programs_used_last_are_kept(monkeypatch):
  compiled.clear()
  monkeypatch.setattr(compiled, 'MAX_PROGRAMS', 2)

  def get(size):
    return _compiled(lambda x: x + 1, jnp.ones(size))

  first, second = get(1), get(2)
  assert get(1) is first
  get(3)  # and the program of size 2 is forgotten
  assert get(1) is first
  assert get(2) is not second


def test_threads_wait_for_one_compilation(count):
  lowered = jax.jit(lambda x: x @ x + 1).lower(jnp.ones((9, 9)))
  found = []

  def run():
    found.append(compiled.compile_once('run', lowered, _mesh()))

  def run_all():
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()

  assert count(run_all) == 1
  assert len(found) == 4 and len({id(x) for x in found}) == 1
