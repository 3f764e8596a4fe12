"""Losses and metrics, compared with loops and with scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import calibration as sklearn_calibration
from sklearn import metrics as sklearn_metrics

import lplmtl
from lplmtl import losses, metrics, tasks
from tests import contracts, reference

# Eagerly, every operation of a metric compiles for every shape.
jitted = functools.cache(jax.jit)

LOSSES = {
  'binary': (losses.binary_cross_entropy, 1, lambda r, n: r.integers(0, 2, n)),
  'multiclass': (
    losses.softmax_cross_entropy,
    3,
    lambda r, n: r.integers(0, 3, n),
  ),
  'regression': (losses.half_squared_error, 1, lambda r, n: r.normal(size=n)),
  'huber': (losses.Huber(0.5), 1, lambda r, n: r.normal(size=n)),
  'poisson': (losses.half_poisson_deviance, 1, lambda r, n: r.poisson(2, n)),
  'focal': (losses.Focal(1.5), 1, lambda r, n: r.integers(0, 2, n)),
  'ordinal': (
    losses.ordinal_cross_entropy,
    3,
    lambda r, n: r.integers(0, 4, n),
  ),
}


def _rows(name, rows=9):
  rng = np.random.default_rng(4)
  loss_fn, outputs, draw = LOSSES[name]
  predictions = jnp.asarray(rng.normal(size=(rows, outputs)), jnp.float32)
  return loss_fn, predictions, jnp.asarray(draw(rng, rows))


@pytest.mark.parametrize('name', LOSSES)
def test_loss_contract(name):
  loss_fn, predictions, labels = _rows(name)
  values = loss_fn(predictions, labels)
  assert values.shape == (9,) and values.dtype == jnp.float32
  np.testing.assert_allclose(
    jax.jit(loss_fn)(predictions, labels), values, rtol=1e-6
  )
  one_by_one = jax.jit(jax.vmap(lambda p, y: loss_fn(p[None], y[None])[0]))
  np.testing.assert_allclose(one_by_one(predictions, labels), values, rtol=1e-6)
  low = jax.jit(loss_fn)(predictions.astype(jnp.bfloat16), labels)
  assert low.dtype == jnp.float32
  np.testing.assert_allclose(low, values, atol=0.05, rtol=0.05)
  # Dense labels are averaged within the row.
  wide = jax.jit(loss_fn)(
    jnp.stack([predictions, predictions], axis=1),
    jnp.stack([labels, labels], axis=1),
  )
  np.testing.assert_allclose(wide, values, rtol=1e-6)
  with pytest.raises(ValueError, match=r'\(9, \d\) and \(8,\)'):
    loss_fn(predictions, labels[:-1])


def test_loss_values():
  logits = np.array([-40.0, -1.0, 0.0, 2.0, 40.0])
  labels = np.array([0, 1, 1, 0, 1])
  values = losses.binary_cross_entropy(
    jnp.asarray(logits)[:, None], jnp.asarray(labels)
  )
  expected = [
    reference.binary_cross_entropy(s, y)
    for s, y in zip(logits, labels, strict=True)
  ]
  np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-12)
  classes = jnp.log(jnp.array([[0.2, 0.3, 0.5]]))
  np.testing.assert_allclose(
    losses.softmax_cross_entropy(classes, jnp.array([1])),
    -np.log([0.3]),
    rtol=1e-6,
  )
  one, three = jnp.array([1.0]), jnp.array([[3.0]])
  np.testing.assert_allclose(losses.half_squared_error(three, one), [2.0])
  np.testing.assert_allclose(losses.squared_error(three, one), [4.0])
  with pytest.raises(ValueError, match=r'\.\.\., 1\]'):
    losses.binary_cross_entropy(jnp.zeros((2, 2)), jnp.zeros(2))


def test_masked_mean_uses_each_tasks_own_rows():
  values = jnp.array([1.0, 2.0, 4.0, 8.0])
  where = jnp.array([True, False, True, True])
  weights = jnp.array([1.0, 9.0, 2.0, 0.0])
  mean, present = losses.masked_mean(values, where, weights)
  np.testing.assert_allclose(mean, (1 * 1 + 2 * 4) / (1 + 2))
  assert present
  mean, present = losses.masked_mean(values, jnp.zeros(4, bool))
  assert mean == 0 and not present
  mean, present = losses.masked_mean(values, None, jnp.zeros(4))
  assert mean == 0 and not present


def test_task_losses_with_missing_labels_and_weights():
  """A masked NaN label has no effect, not even on gradients."""
  data = contracts.batch(rows=6)
  labels = {**data.labels, 'mango': data.labels['mango'].at[2].set(jnp.nan)}
  where = {
    'mango': jnp.array([1, 1, 0, 1, 0, 1], bool),
    'apple': jnp.zeros(6, bool),
  }
  weights = jnp.array([1.0, 2.0, 3.0, 0.5, 1.0, 0.0])
  masked = lplmtl.Batch(data.features, labels, where, weights)
  rng = np.random.default_rng(0)
  predictions = {
    t.name: jnp.asarray(rng.normal(size=(6, t.num_outputs)), jnp.float32)
    for t in contracts.TASKS
  }

  def total(predictions):
    values, present = losses.task_losses(contracts.TASKS, predictions, masked)
    return jnp.sum(values), (values, present)

  gradient, (values, present) = jax.jit(jax.grad(total, has_aux=True))(
    predictions
  )
  np.testing.assert_array_equal(present, [True, False, True])
  kept = np.array([0, 1, 3, 5])
  errors = np.square(predictions['mango'][kept, 0] - labels['mango'][kept]) / 2
  np.testing.assert_allclose(
    values[2], np.average(errors, weights=weights[kept]), rtol=1e-5
  )
  assert values[1] == 0
  assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))
  assert (gradient['mango'][jnp.array([2, 4, 5])] == 0).all()
  assert (gradient['apple'] == 0).all()


def test_weights_by_task():
  """Each task as with its weights alone; a task without any has weight 1."""
  data = contracts.batch(rows=6)
  weights = {'zebra': jnp.arange(6.0), 'mango': jnp.array([0, 1, 0, 2, 0, 3])}
  rng = np.random.default_rng(0)
  predictions = {
    t.name: jnp.asarray(rng.normal(size=(6, t.num_outputs)), jnp.float32)
    for t in contracts.TASKS
  }

  def of(weights):
    batch = data._replace(weights=weights)
    values, present = losses.task_losses(contracts.TASKS, predictions, batch)
    assert present.all()
    return values, losses.row_totals(contracts.TASKS, batch)

  values, totals = of(weights)
  for i, task in enumerate(contracts.TASKS):
    alone, total = of(weights.get(task.name))
    assert values[i] == alone[i] and totals[i] == total[i]
  np.testing.assert_array_equal(totals, [15, 6, 6])


def test_task_losses_name_what_is_missing():
  data = contracts.batch()
  with pytest.raises(ValueError, match="prediction .*'zebra'"):
    losses.task_losses(contracts.TASKS, {}, data)
  scalar = lplmtl.Task('zebra', lambda p, y: jnp.mean(p))
  with pytest.raises(ValueError, match="'zebra': loss_fn .* per row"):
    losses.task_losses([scalar], {'zebra': jnp.zeros((7, 1))}, data)


@pytest.mark.parametrize(
  'make, complaint',
  [
    (lambda: tasks.binary(''), 'non-empty'),
    (lambda: tasks.binary(3), 'found 3'),
    (
      lambda: lplmtl.Task('a', 'mse'),
      "'a': loss_fn .* 'mse'",
    ),
    (
      lambda: lplmtl.Task('a', losses.squared_error, metric_fns=[metrics.r2]),
      'metric_fns must',
    ),
    (
      lambda: lplmtl.Task('a', losses.squared_error, num_outputs=1.0),
      'num_outputs .* found 1.0',
    ),
    (lambda: tasks.multiclass('a', 1), "num_classes of task 'a' .* found 1"),
    (lambda: tasks.multiclass('a', 2.0), 'num_classes .* found 2.0'),
    (
      lambda: lplmtl.Task('a', losses.squared_error, num_outputs=0),
      'num_outputs .* found 0',
    ),
  ],
)
def test_bad_tasks(make, complaint):
  with pytest.raises(ValueError, match=complaint):
    make()


def test_one_class_is_refused():
  """The loss would silently be 0."""
  task = lplmtl.Task('kind', losses.softmax_cross_entropy)
  batch = lplmtl.Batch(jnp.zeros((3, 2)), {'kind': jnp.zeros(3, int)})
  with pytest.raises(ValueError, match="'kind': .* 2 classes"):
    losses.task_losses([task], {'kind': jnp.zeros((3, 1))}, batch)
  assert tasks.multiclass('kind', np.int64(3)).num_outputs == 3


def _scores(rows, seed=0, decimals=2):
  rng = np.random.default_rng(seed)
  labels = (rng.random(rows) < 0.1).astype(np.int32)
  scores = np.round(rng.normal(size=rows) + labels, decimals)
  return scores.astype(np.float32), labels


def test_roc_auc_is_exact_on_100_000_rows_with_ties():
  for decimals in (1, 2, 6):
    scores, labels = _scores(100_000, decimals=decimals)
    expected = sklearn_metrics.roc_auc_score(labels, scores)
    auc = jitted(metrics.roc_auc)(scores, labels)
    np.testing.assert_allclose(auc, expected, atol=1e-6)
    expected = sklearn_metrics.average_precision_score(labels, scores)
    precision = jitted(metrics.average_precision)(scores, labels)
    np.testing.assert_allclose(precision, expected, atol=2e-6)


@pytest.mark.slow
def test_roc_auc_pairs():
  scores, labels = _scores(60, decimals=1)
  expected = reference.roc_auc(scores, labels)
  np.testing.assert_allclose(
    metrics.roc_auc(scores, labels), expected, rtol=1e-6
  )
  np.testing.assert_allclose(
    metrics.roc_auc(scores[:, None], labels), expected, rtol=1e-6
  )
  assert metrics.roc_auc(np.zeros(60, np.float32), labels) == 0.5
  # With a million rows the number of pairs does not fit into 32 bits.
  scores, labels = _scores(1_000_000, decimals=3)
  expected = sklearn_metrics.roc_auc_score(labels, scores)
  np.testing.assert_allclose(
    jitted(metrics.roc_auc)(scores, labels), expected, atol=1e-6
  )


METRICS = {
  'roc_auc': metrics.roc_auc,
  'average_precision': metrics.average_precision,
  'log_loss': metrics.log_loss,
  'calibration_error': metrics.calibration_error,
  'accuracy': metrics.accuracy,
  'r2': metrics.r2,
}
# `test_tasks.py` compares these with scikit-learn, masks included.
OTHERS = {
  'poisson_d2': metrics.poisson_d2,
  'mean_absolute_error': metrics.mean_absolute_error,
}


@pytest.mark.parametrize('name', METRICS)
def test_metric_contract(name):
  fn = jitted(METRICS[name])
  scores, labels = _scores(300)
  where, every = np.random.default_rng(1).random(300) < 0.7, np.ones(300, bool)
  masked = np.where(where, scores, np.nan)
  expected = fn(scores[where], labels[where])
  np.testing.assert_allclose(fn(masked, labels, where), expected, rtol=1e-5)
  batched = jax.jit(jax.vmap(METRICS[name]))(
    np.stack([scores, -scores]), np.stack([labels, labels])
  )
  np.testing.assert_allclose(batched[1], fn(-scores, labels, every), rtol=1e-5)
  assert np.isnan(fn(scores, labels, ~every))
  assert np.isnan(fn(np.full(300, np.nan, np.float32), labels, every))


def test_soft_labels_are_two_rows_with_weights():
  """Compared with sample weights in scikit-learn, and floats with integers."""
  scores, hard = _scores(300, decimals=1)
  rng = np.random.default_rng(2)
  soft = np.where(rng.random(300) < 0.5, rng.random(300), hard)
  soft = soft.astype(np.float32)
  where = rng.random(300) < 0.8
  x, y = scores[where], soft[where]
  twice = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
  for metric, oracle in (
    (metrics.roc_auc, sklearn_metrics.roc_auc_score),
    (metrics.average_precision, sklearn_metrics.average_precision_score),
  ):
    expected = oracle(
      twice,
      np.concatenate([x, x]),
      sample_weight=np.concatenate([y, 1 - y]),
    )
    fn = jitted(metric)
    np.testing.assert_allclose(fn(scores, soft, where), expected, rtol=1e-5)
    as_floats = fn(scores, hard.astype(np.float32), where)
    assert fn(scores, hard, where) == as_floats
  always = np.full(300, 0.3, np.float32)
  auc = jitted(metrics.roc_auc)(scores, always, where)
  np.testing.assert_allclose(auc, 0.5, rtol=1e-5)
  assert metrics.accuracy(jnp.array([1.0, -1.0]), jnp.array([0.7, 0.2])) == 1


@pytest.mark.parametrize('rows', [10, 1000, 100_003])
def test_r2_of_labels_that_do_not_vary(rows):
  """Their mean in float32 differs from each of them."""
  labels = np.full(rows, 0.1, np.float32)
  r2 = jitted(metrics.r2)
  assert np.isnan(r2(labels + 0.5, labels, np.ones(rows, bool)))
  where = np.arange(rows) < rows // 2
  varying = np.where(where, labels, np.nan)
  assert np.isnan(r2(labels + 0.5, varying, where))


def test_r2_far_from_zero():
  rng = np.random.default_rng(0)
  labels = (1e6 + rng.normal(size=10_000)).astype(np.float32)
  predictions = (labels + rng.normal(size=10_000)).astype(np.float32)
  expected = sklearn_metrics.r2_score(
    labels.astype(np.float64), predictions.astype(np.float64)
  )
  np.testing.assert_allclose(
    jitted(metrics.r2)(predictions, labels), expected, rtol=1e-4
  )


def test_undefined_metrics_are_nan():
  scores, ones = np.arange(300, dtype=np.float32), np.ones(300, np.int32)
  every = np.ones(300, bool)
  for metric, labels in (
    (metrics.roc_auc, ones), (metrics.roc_auc, 0 * ones),
    (metrics.average_precision, 0 * ones), (metrics.r2, ones),
  ):  # fmt: skip
    assert np.isnan(jitted(metric)(scores, labels, every))


def test_metrics_equal_scikit_learn():
  scores, labels = _scores(500)
  probability = 1 / (1 + np.exp(-scores.astype(np.float64)))
  np.testing.assert_allclose(
    metrics.log_loss(scores, labels),
    sklearn_metrics.log_loss(labels, probability),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    metrics.accuracy(scores[:, None], labels),
    sklearn_metrics.accuracy_score(labels, probability > 0.5),
  )
  np.testing.assert_allclose(
    metrics.calibration_error(scores, labels),
    reference.calibration_error(probability, labels, 15),
    rtol=1e-4,
  )
  curve = metrics.calibration_curve(scores, labels)
  shares, means = sklearn_calibration.calibration_curve(
    labels, probability, n_bins=15
  )
  filled = np.asarray(curve.num_rows) > 0
  np.testing.assert_allclose(curve.observed[filled], shares, rtol=1e-5)
  np.testing.assert_allclose(curve.predicted[filled], means, rtol=1e-5)
  assert curve.num_rows.sum() == 500 and np.isnan(curve.observed[~filled]).all()
  where = np.arange(500) % 2 == 0
  half = metrics.calibration_curve(scores, labels, where)
  expected = metrics.calibration_curve(scores[where], labels[where])
  for masked, selected in zip(half, expected, strict=True):
    np.testing.assert_allclose(masked, selected, rtol=1e-5)
  classes = np.random.default_rng(2).normal(size=(500, 4)).astype(np.float32)
  kinds = np.random.default_rng(3).integers(0, 4, 500)
  shares = np.exp(classes) / np.exp(classes).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(
    metrics.log_loss(classes, kinds),
    sklearn_metrics.log_loss(kinds, shares),
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    metrics.accuracy(classes, kinds),
    sklearn_metrics.accuracy_score(kinds, classes.argmax(axis=1)),
  )
  truth = scores + np.random.default_rng(5).normal(size=500)
  np.testing.assert_allclose(
    metrics.r2(scores, truth),
    sklearn_metrics.r2_score(truth, scores),
    rtol=1e-4,
  )
  with pytest.raises(ValueError, match=r'\[N, 1\]'):
    metrics.roc_auc(classes, kinds)
  with pytest.raises(ValueError, match='labels'):
    metrics.roc_auc(scores, labels[:-1])


@pytest.mark.parametrize('name', [*METRICS, *OTHERS])
def test_labels_of_another_length(name):
  """A single label would be broadcast to all rows."""
  for labels in (np.zeros(3), np.zeros(1), np.zeros((4, 1))):
    with pytest.raises(ValueError, match=r'labels .*\(4,\), found \('):
      {**METRICS, **OTHERS}[name](jnp.zeros((4, 1)), labels)
  if name in ('log_loss', 'accuracy'):
    with pytest.raises(ValueError, match=r'labels .*\(4,\), found'):
      METRICS[name](jnp.zeros((4, 3)), np.zeros(1, np.int32))


@pytest.mark.parametrize('kind', ['x64', 'strict'])
def test_float32_in_other_modes_of_jax(kind):
  """From labels and scores of any dtype; traced only."""
  is_double = kind == 'x64'
  mode = (
    contracts.double_precision()
    if is_double
    else jax.numpy_dtype_promotion('strict')
  )
  wide = jnp.float64 if is_double else jnp.float32
  with mode:
    for dtype in (bool, jnp.int8, jnp.bfloat16, wide):
      labels = jax.ShapeDtypeStruct((9,), dtype)
      where = jax.ShapeDtypeStruct((9,), bool)
      for scores in (jnp.bfloat16, wide):
        outputs = jax.ShapeDtypeStruct((9, 1), scores)
        classes = jax.ShapeDtypeStruct((9, 3), scores)
        for loss_fn, num_outputs, _ in LOSSES.values():
          values = jax.eval_shape(
            loss_fn, outputs if num_outputs == 1 else classes, labels
          )
          assert values.dtype == jnp.float32, (loss_fn, dtype, scores)
        for fn in (*METRICS.values(), *OTHERS.values()):
          values = jax.eval_shape(fn, outputs, labels, where)
          assert values.dtype == jnp.float32, (fn, dtype, scores)
        for fn in (metrics.log_loss, metrics.accuracy):
          values = jax.eval_shape(fn, classes, labels, where)
          assert values.dtype == jnp.float32, (fn, dtype, scores)
