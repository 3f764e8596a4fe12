"""Sensitivity of embeddings, folding of steps, merging of values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, tables, tasks, types
from lplmtl.compression import distillation, merging, merging_path, packing
from lplmtl.layers import crosses, encoder, experts
from tests import contracts

RNG = np.random.default_rng(0)
N = 40
COLUMNS = {
  'city': RNG.choice(['Oslo', 'Rome', 'Lima', 'Bern', 'Cork'], N),
  'sex': RNG.choice(['f', 'm'], N),
  'age': RNG.integers(18, 30, N).astype(float),
  'pay': RNG.normal(size=N),
}
FITTED = tables.fit(
  {name: COLUMNS[name] for name in ('city', 'sex')},
  {name: COLUMNS[name] for name in ('age', 'pay')},
  num_bins=5,
)
FEATURES = FITTED.encode(COLUMNS)
TASKS = (
  tasks.binary('click'),
  tasks.multiclass('item', 3),
  tasks.regression('price'),
  tasks.poisson('visits'),
)
LABELS = {
  'click': RNG.integers(0, 2, N),
  'item': RNG.integers(0, 3, N),
  'price': RNG.normal(size=N),
  'visits': RNG.integers(0, 5, N),
}
BATCH = types.Batch(
  FEATURES,
  LABELS,
  where={'click': np.arange(N) < 30},
  weights={'price': RNG.uniform(0, 2, N)},
)


def _encoder(fitted, num_ordered=None):
  ordered = fitted.num_ordered if num_ordered is None else num_ordered
  columns = encoder.TabularEncoder(fitted.num_categories, 2, ordered)
  return crosses.CrossNetwork(columns, rank=2, num_layers=1)


def _made(cls=lplmtl.SharedBottom, fitted=FITTED, todo=TASKS, features=FEATURES):  # fmt: skip
  model = cls(todo, encoder=_encoder(fitted))
  params = contracts.random_params(model, features)
  # Larger than they are drawn, so that no part of the model is linear.
  return model, jax.tree_util.tree_map_with_path(
    lambda path, x: 20 * x if 'embedding' in str(path) else x, params
  )


MODEL, PARAMS = _made()


@pytest.fixture(scope='module')
def measured():
  return merging.sensitivity(FITTED, MODEL, PARAMS, BATCH)


def _predict(model, params):
  return lplmtl.predict(model, params, FEATURES)


@pytest.mark.parametrize('cls', [lplmtl.SharedBottom, lplmtl.SingleTask, lplmtl.STEM])  # fmt: skip
def test_folded_steps_leave_the_function_as_it_is(cls):
  model, params = _made(cls)
  folded, smaller = merging.fold_steps(model, params)
  names = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(smaller)]  # fmt: skip
  assert not any('steps' in name for name in names)
  fresh = jax.eval_shape(folded.init, jax.random.key(0), FEATURES)['params']
  assert jax.tree.structure(fresh) == jax.tree.structure(smaller)
  expected = _predict(model, params)
  for name, logits in _predict(folded, smaller).items():
    np.testing.assert_allclose(logits, expected[name], atol=1e-5)
  assert merging.fold_steps(folded, smaller) == (folded, smaller)


def test_steps_of_several_seeds_and_of_a_wrapped_model_are_folded():
  seeds = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), PARAMS)
  wrapped = lplmtl.compression.Quantized(MODEL)
  folded, smaller = merging.fold_steps(wrapped, seeds)
  assert isinstance(folded, lplmtl.compression.Quantized)
  for i, factor in enumerate((1, 2)):
    one = merging.fold_steps(MODEL, jax.tree.map(lambda x, k=factor: k * x, PARAMS))  # fmt: skip
    assert folded.model == one[0]
    jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5), smaller, one[1])  # fmt: skip
  columns = MODEL.encoder.encoder
  alone, _ = merging.fold_steps(columns, PARAMS['encoder']['encoder'])
  assert alone == columns.clone(num_ordered=0)


def test_parameters_of_another_model_are_not_folded():
  with pytest.raises(ValueError, match='have no steps for the 2 ordered'):
    merging.fold_steps(MODEL, {'bottom': {'kernel': jnp.ones((2, 2))}})


def _hessian(task, logits, label):
  """The Hessians by hand."""
  if task == 'click':
    p = 1 / (1 + np.exp(-logits[0]))
    return np.array([[p * (1 - p)]])
  if task == 'item':
    p = np.exp(logits) / np.exp(logits).sum()
    return np.diag(p) - np.outer(p, p)
  return np.array([[1.0 if task == 'price' else np.exp(logits[0])]])


def _weight(task, row):
  where = np.asarray(BATCH.where.get(task, np.ones(N, bool)))
  weights = BATCH.weights.get(task, np.ones(N)) * where
  return weights[row] / weights.sum()


@pytest.mark.slow
def test_sensitivity_is_the_sum_over_rows_of_its_definition(measured):
  """Row by row and value by value, with the Hessians by hand."""
  found = measured
  model, params = merging.fold_steps(MODEL, PARAMS)
  table = params['encoder']['encoder']['embedding']
  offsets = np.cumsum((0, *FITTED.num_categories))[:-1]

  def outputs(table, numbers, ids):
    changed = {**params, 'encoder': {**params['encoder'], 'encoder': {'embedding': table}}}  # fmt: skip
    x = {'categories': ids[None], 'numeric': numbers[None]}
    logits = model.apply({'params': changed}, x)[0]
    return {name: z[0] for name, z in logits.items()}

  both = jax.jit(lambda *x: (outputs(*x), jax.jacfwd(outputs, (0, 1))(*x)))
  expected = {t.name: np.zeros((len(table), 3, 3)) for t in TASKS}
  for row in range(N):
    numbers, ids = (FEATURES[name][row] for name in ('numeric', 'categories'))
    logits, slopes = jax.device_get(both(table, numbers, ids))
    for task, (by_table, by_number) in slopes.items():
      hessian = _hessian(task, logits[task], LABELS[task][row])
      for c, v in enumerate(offsets + ids):
        # Columns 2 and 3 are the bins of the two numbers.
        number = by_number[:, c - 2] if c >= 2 else np.zeros(len(hessian))
        jacobian = np.concatenate([by_table[:, v], number[:, None]], axis=1)
        expected[task][v] += _weight(task, row) * jacobian.T @ hessian @ jacobian  # fmt: skip
  for task, matrices in expected.items():
    assert matrices.max() > 0
    np.testing.assert_allclose(found.curvature[task], matrices, rtol=1e-4, atol=1e-5 * matrices.max())  # fmt: skip
  np.testing.assert_allclose(found.vectors[:, :2], table, rtol=1e-6)
  assert (found.vectors[: offsets[2], 2] == 0).all()
  for c in (0, 1):
    bins = FEATURES['categories'][:, 2 + c]
    for b in np.unique(bins):
      mean = FEATURES['numeric'][bins == b, c].mean()
      assert found.vectors[offsets[2 + c] + b, 2] == pytest.approx(mean)
  assert found.counts.sum() == N * 4


@pytest.mark.slow
def test_seeds_share_their_programs(num_compiled):
  rows = jax.tree.map(lambda x: x[:35], BATCH)

  def measure(seed):
    model = lplmtl.SharedBottom(TASKS, encoder=_encoder(FITTED))
    params = jax.tree.map(lambda x: np.asarray(x) + 0.1 * seed, PARAMS)
    merging.sensitivity(FITTED, model, params, rows)

  assert num_compiled(measure, 0) > 0
  assert num_compiled(measure, 1) == 0


def _objective(vectors, curvature, groups):
  """The loss of moving each value to the best vector of its group."""
  total = 0.0
  for group in np.unique(groups):
    some = groups == group
    matrices, points = curvature[some], vectors[some]
    pull = np.einsum('nde,ne->d', matrices, points)
    middle = np.linalg.lstsq(matrices.sum(axis=0), pull, rcond=None)[0]
    apart = points - middle
    total += np.einsum('nd,nde,ne->', apart, matrices, apart) / 2
  return total


def _random_column(seed, count):
  rng = np.random.default_rng(seed)
  roots = rng.normal(size=(count, 4, 3)) * rng.uniform(0, 2, (count, 1, 1))
  roots[3] = 0  # a value that no row holds
  return rng.normal(size=(count, 3)), roots.transpose(0, 2, 1) @ roots


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('ordered', [False, True])
def test_each_step_merges_what_costs_least_per_byte(seed, ordered):
  """Against all partitions that one step can lead to, by least squares."""
  vectors, curvature = _random_column(seed, 7)
  sizes = None if ordered else np.array([0, 1, 1, 2, 1, 1, 3])
  prices = merging_path.Prices(group=1, value=0.5, column=3)
  steps = merging_path.find(
    [merging_path.Column(vectors, curvature, prices, sizes)], may_empty=True
  )
  groups, spent = np.arange(7), 0.0
  for i, step in enumerate(steps, 1):
    ratios = {
      after: (_objective(vectors, curvature, np.array(after)) - spent) / bytes_
      for after, bytes_ in _next(groups, sizes, prices)
    }
    (groups,) = merging_path.groups([7], steps[:i])
    least = min(ratios.values())
    assert ratios[tuple(groups.tolist())] == pytest.approx(
      least, rel=1e-4, abs=1e-6
    )
    assert step.loss / step.saved == pytest.approx(least, rel=1e-4, abs=1e-6)
    spent = _objective(vectors, curvature, groups)
    assert sum(s.loss for s in steps[:i]) == pytest.approx(
      spent, rel=1e-4, abs=1e-6
    )
  assert (groups == 0).all()


def _next(groups, sizes, prices):
  """Yields the groups after each possible step, and the bytes it saves."""
  known = np.unique(groups)
  before = _bytes(groups, sizes, prices)
  if len(known) > 2:
    for i, first in enumerate(known):
      for second in known[i + 1 : i + 2] if sizes is None else known[i + 1 :]:
        after = np.where(groups == second, first, groups)
        yield tuple(after.tolist()), before - _bytes(after, sizes, prices)
  yield (0,) * len(groups), before


def _bytes(groups, sizes, prices):
  known = np.unique(groups)
  told = len(known) - 1
  if sizes is not None:
    told = sizes[groups != groups[0]].sum()
  return prices.group * len(known) + prices.value * told + prices.column


@pytest.mark.slow
def test_merged_tables_train_and_merge_again(measured):
  smaller = merging.merge(FITTED, MODEL, PARAMS, BATCH, num_ids=9)
  assert smaller == merging.merge_by(FITTED, measured, num_ids=9)
  new = smaller.tables
  assert sum(new.num_categories) <= 9
  assert all(n.only_bins for n in new.numerics.values()) and not new.numbers
  features = new.encode(COLUMNS)
  assert features['numeric'].shape == (N, 0)
  model, params = _made(fitted=new, features=features)
  again = merging.merge(
    new, model, params, BATCH._replace(features=features), num_ids=5
  )
  assert sum(again.tables.num_categories) <= 5
  # Values that were together stay together.
  old, ids = new.encode(COLUMNS)['categories'], again.tables.encode(COLUMNS)
  names = [*new.vocabularies, *(n for n, s in new.numerics.items() if s.edges)]
  left = [*again.tables.vocabularies, *(n for n, s in again.tables.numerics.items() if s.edges)]  # fmt: skip
  assert set(left) < set(names)
  for i, name in enumerate(left):
    pairs = {*zip(old[:, names.index(name)].tolist(), ids['categories'][:, i].tolist(), strict=True)}  # fmt: skip
    assert len(pairs) == len({before for before, _ in pairs})
  gone = set(new.columns) - set(again.tables.columns)
  assert set(again.dropped) == gone
  assert tables.Tables.from_json(again.tables.to_json()) == again.tables


def test_unseen_values_join_the_largest_group(measured):
  found = merging.merge_by(FITTED, measured, num_ids=15).tables
  for name, ids in found.merged.items():
    counts = np.bincount(ids[1:])
    assert counts[0] == counts.max(), name


def test_a_budget_of_bytes_is_that_of_the_packed_tables(measured):
  costs = merging.Costs(row=2, column=5, hash_bits=16)
  everything = costs.num_bytes(FITTED)
  packed = packing.pack({'x': np.zeros(1, np.float32)}, FITTED, hash_bits=16)
  sizes = FITTED.num_categories
  assert everything == packed.num_bytes - 4 + 2 * sum(sizes) + 5 * len(sizes)
  for budget in (everything - 1, 80, 40):
    smaller = merging.merge_by(FITTED, measured, num_bytes=budget, costs=costs)
    assert costs.num_bytes(smaller.tables) <= budget


@pytest.mark.slow
def test_values_that_no_task_needs_go_first():
  rng = np.random.default_rng(1)
  useful, noise = rng.choice(list('abcdef'), 400), rng.choice(list('uvwxyz'), 400)  # fmt: skip
  fitted = tables.fit({'useful': useful, 'noise': noise}, {'x': rng.normal(size=400)}, num_bins=8)  # fmt: skip
  columns = {'useful': useful, 'noise': noise, 'x': rng.normal(size=400)}
  todo = (tasks.binary('click'),)
  is_click = np.isin(useful, ['a', 'b']) ^ (rng.random(400) < 0.1)
  batch = types.Batch(fitted.encode(columns), {'click': is_click.astype(int)})
  model = lplmtl.SharedBottom(todo, encoder=_encoder(fitted), bottom=experts.MLP((8,)))  # fmt: skip
  result = lplmtl.fit(
    jax.random.key(0), model, optax.adam(3e-2), balancing.equal(), batch,
    batch_size=100, num_epochs=10,
  )  # fmt: skip
  smaller = merging.merge(fitted, model, result.params, batch, num_ids=2)
  assert list(smaller.tables.vocabularies) == ['useful']
  assert set(smaller.dropped) == {'noise', 'x'}
  ids = smaller.tables.encode({'useful': list('abcdef')})['categories'][:, 0]
  assert ids.tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.slow
def test_columns_of_dates_and_booleans_disappear():
  days = np.datetime64('2020-01-01') + RNG.integers(0, 900, N)
  columns = {'day': days.astype(str), 'vip': RNG.choice(['yes', 'no'], N), 'pay': COLUMNS['pay']}  # fmt: skip
  fitted = tables.fit({}, {'pay': columns['pay']}, num_bins=4, booleans={'vip': columns['vip']}, dates={'day': (columns['day'], '')})  # fmt: skip
  features = fitted.encode(columns)
  model, params = _made(fitted=fitted, features=features)
  batch = BATCH._replace(features=features)
  found = merging.sensitivity(fitted, model, params, batch)
  for num_ids in range(sum(fitted.num_categories), 1, -1):
    new = merging.merge_by(fitted, found, num_ids=num_ids).tables
    read = new.encode({name: columns[name] for name in new.columns})
    assert read['categories'].shape[1] == len(new.num_categories)
    assert read['numeric'].shape == (N, 0)
    assert tables.Tables.from_json(new.to_json()) == new
  assert len(new.num_categories) == 1


@pytest.mark.parametrize(
  ('change', 'complaint'),
  [
    ({'num_ids': None}, 'give a budget, either num_ids or num_bytes'),
    ({'num_bytes': 9}, 'give a budget, either num_ids or num_bytes'),
    (
      {'batch': BATCH._replace(where={'item': np.zeros(N, bool)})},
      "no row of batch has a label of task 'item'",
    ),
    (
      {'batch': BATCH._replace(weights={'item': np.zeros(N)})},
      "no row of batch has a label of task 'item'",
    ),
    (
      {'batch': BATCH._replace(labels={'click': LABELS['click']})},
      "no labels of task 'item'",
    ),
    (
      {'batch': types.Batch(jax.tree.map(lambda x: x[:0], FEATURES), {})},
      'batch must have at least one row, found none',
    ),
    (
      {'batch': FEATURES},
      'must be a lplmtl.Batch of rows and labels, found dict',
    ),
    ({'tables': None}, 'tables must be what lplmtl.tables.fit returns'),
    (
      {'tables': tables.fit({'city': ['a']}, {})},
      'the tables have 1 columns and 2 ids, the encoder has 4 and ',
    ),
    ({'model': lplmtl.MLP((2,))}, 'with a TabularEncoder, found MLP without'),
    (
      {'model': lplmtl.MMoE(TASKS, encoder=MODEL.encoder)},
      'not those of this MMoE, of which they lack',
    ),
    ({'params': {'bottom': jnp.ones(3)}}, 'no steps for the 2 ordered'),
    (
      {'params': jax.tree.map(lambda x: x[None], PARAMS)},
      'parameters of one seed with embeddings',
    ),
  ],
)
def test_mistakes(change, complaint):
  given = {'tables': FITTED, 'model': MODEL, 'params': PARAMS, 'batch': BATCH, 'num_ids': 9} | change  # fmt: skip
  arguments = [given.pop(k) for k in ('tables', 'model', 'params', 'batch')]
  with pytest.raises(ValueError, match=complaint):
    merging.merge(*arguments, **given)


def test_budgets_and_tables_that_do_not_fit(measured):
  with pytest.raises(merging.BudgetError, match='num_ids=1 .* 2 are left'):
    merging.merge_by(FITTED, measured, num_ids=1)
  with pytest.raises(merging.BudgetError, match='num_bytes=3.0 .* are left'):
    merging.merge_by(FITTED, measured, num_bytes=3.0)
  other = tables.fit({'city': COLUMNS['city']}, {})
  with pytest.raises(ValueError, match='sensitivity is that of .* tables have'):
    merging.merge_by(other, measured, num_ids=2)


@pytest.mark.slow
def test_a_distilled_task_is_as_sensitive_as_the_task():
  """The Hessian of a cross-entropy does not depend on the labels."""
  todo = TASKS[:1]
  model, params = _made(todo=todo)
  batch = BATCH._replace(where=None, weights=None)
  plain = merging.sensitivity(FITTED, model, params, batch)
  soft = distillation.with_teacher(todo, batch, {'click': RNG.normal(size=(N, 1))})  # fmt: skip
  student = model.clone(tasks=(distillation.distilled(todo[0], share=0.5),))
  found = merging.sensitivity(FITTED, student, params, soft)
  np.testing.assert_allclose(
    found.curvature['click'], plain.curvature['click'], atol=1e-6
  )
  assert found.losses['click'] != plain.losses['click']


@pytest.mark.slow
def test_other_kinds_of_tasks_have_positive_semidefinite_curvature():
  todo = tasks.ordinal('grade', 4), tasks.multilabel('tags', 3), tasks.focal('fraud'), tasks.huber('cost')  # fmt: skip
  model, params = _made(todo=todo)
  labels = {
    'grade': RNG.integers(0, 4, N),
    'tags': RNG.integers(0, 2, (N, 3)),
    'fraud': RNG.integers(0, 2, N),  # its Hessian has both signs
    'cost': RNG.normal(size=N),
  }
  found = merging.sensitivity(FITTED, model, params, types.Batch(FEATURES, labels))  # fmt: skip
  for task, matrices in found.curvature.items():
    values = np.linalg.eigvalsh(matrices)
    assert values.min() > -1e-6 * values.max() and values.max() > 0, task


@pytest.mark.parametrize(
  'change', [{'row': 0}, {'column': -1}, {'hash_bits': 4}]
)
def test_costs_are_checked(change):
  ((name, value),) = change.items()
  with pytest.raises(ValueError, match=f'{name} .*found .*{value}'):
    merging.Costs(**change)
