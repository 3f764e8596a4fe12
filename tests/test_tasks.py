"""The kinds of task beyond yes/no, class and number: oracles, fits, files."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats
from sklearn import metrics as oracle

import lplmtl
from lplmtl import balancing, blueprint, checkpoint, losses, metrics, ordinal
from lplmtl import tasks as kinds
from lplmtl.training import arrays
from tests import contracts

ROWS, CLASSES = 200, 4
jitted = functools.cache(jax.jit)


def _draw(outputs, scale=1.0, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(0, scale, (ROWS, outputs)).astype(np.float32)


Z = _draw(1)[:, 0]
WHERE = np.random.default_rng(5).random(ROWS) < 0.7
COUNTS = np.random.default_rng(1).poisson(np.exp(Z)).astype(np.float32)
GRADES = np.random.default_rng(2).integers(0, CLASSES, ROWS)
STEPS = _draw(CLASSES - 1, seed=3) + 1.5 - np.arange(CLASSES - 1) + Z[:, None]
TAGS = (np.random.default_rng(4).random((ROWS, 3)) < [0.5, 0.2, 0]).astype(int)


@pytest.mark.parametrize('labels', [COUNTS, COUNTS * 1e5, COUNTS / 7])
def test_half_poisson_deviance(labels):
  """The negative log likelihood, less that of the label itself."""
  log_rates = np.log(np.maximum(labels, 0.1)) + _draw(1)[:, 0]
  found = losses.half_poisson_deviance(log_rates[:, None], labels)
  counts = labels.astype(np.float64)
  expected = -special.xlogy(counts, np.exp(log_rates)) + np.exp(log_rates)
  expected += special.xlogy(counts, counts) - counts
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  if labels is COUNTS:
    likelihood = stats.poisson.logpmf(COUNTS, np.exp(log_rates))
    best = stats.poisson.logpmf(COUNTS, COUNTS)
    np.testing.assert_allclose(found, best - likelihood, rtol=1e-4, atol=1e-5)


def test_a_perfect_rate_of_many_counts():
  """In the plain formula, float32 would lose all digits."""
  labels = np.array([1e3, 1e6, 1e7], np.float32)
  error = np.array([1e-2, -1e-2, 2e-2])
  log_rates = (np.log(labels.astype(np.float64)) + error).astype(np.float32)
  found = losses.half_poisson_deviance(log_rates[:, None], labels)
  expected = labels * (np.expm1(error) - error)
  np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_huber():
  """The formula of PyTorch and optax."""
  labels, predictions = _draw(1, seed=7)[:, 0], 3 * Z
  error = np.abs(predictions - labels)
  for delta in (0.5, 1.0, 100.0):
    square, line = error**2 / 2, delta * (error - delta / 2)
    found = losses.Huber(delta)(jnp.asarray(predictions)[:, None], labels)
    expected = np.where(error < delta, square, line)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_focal():
  labels = np.random.default_rng(6).random(ROWS).round()
  labels[:20] = 0.3
  predictions = jnp.asarray(3 * Z)[:, None]
  positive = special.expit(3.0 * Z)
  for gamma in (0.0, 0.5, 2.0):
    found = losses.Focal(gamma)(predictions, labels)
    expected = -labels * (1 - positive) ** gamma * np.log(positive)
    expected -= (1 - labels) * positive**gamma * np.log(1 - positive)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
  np.testing.assert_allclose(
    losses.Focal(0.0)(predictions, labels),
    losses.binary_cross_entropy(predictions, labels),
    rtol=1e-6,
  )


def test_ordinal_cross_entropy_is_a_mean_of_binary_ones():
  found = losses.ordinal_cross_entropy(STEPS, GRADES)
  each = [
    losses.binary_cross_entropy(STEPS[:, k, None], np.greater(GRADES, k))
    for k in range(CLASSES - 1)
  ]
  np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)


def test_multilabel_cross_entropy():
  logits = _draw(3)
  each = [
    losses.binary_cross_entropy(logits[:, k, None], TAGS[:, k])
    for k in range(3)
  ]
  found = losses.multilabel_cross_entropy(logits, TAGS)
  np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)
  with pytest.raises(ValueError, match=r'K\]; found \(200, 3\) and \(200,\)'):
    losses.multilabel_cross_entropy(logits, TAGS[:, 0])


@pytest.mark.parametrize(
  'loss_fn, outputs, labels',
  [
    (losses.half_poisson_deviance, 1, [0, 1e-20, 1e9, 3]),
    (losses.Huber(0.1), 1, [0, -1e9, 1e9, 3]),
    (losses.Focal(0.5), 1, [0, 1, 1, 0]),
    (losses.Focal(2.0), 1, [0, 1, 1, 0.5]),
    (losses.ordinal_cross_entropy, 2, [0, 1, 2, 0]),
    (losses.multilabel_cross_entropy, 2, [[0, 1], [1, 1], [1, 0], [0, 0]]),
  ],
)
def test_gradients_at_extreme_logits(loss_fn, outputs, labels):
  labels = jnp.asarray(labels, jnp.float32)
  both = jax.jit(jax.value_and_grad(lambda z: loss_fn(z, labels).sum()))
  for size in (0.0, 30.0, 89.0, 1e4, 1e8):
    for signs in (jnp.ones((4, outputs)), -jnp.ones((4, outputs))):
      value, gradient = both(size * signs)
      assert jnp.isfinite(value) and value >= 0
      assert jnp.isfinite(gradient).all()
      # An optimiser squares it.
      assert jnp.isfinite(jnp.square(gradient).sum())


def test_the_gradient_of_the_poisson_loss():
  gradient = jax.jit(
    jax.grad(lambda z: losses.half_poisson_deviance(z[:, None], COUNTS).sum())
  )(Z)
  np.testing.assert_allclose(gradient, np.exp(Z) - COUNTS, rtol=1e-3, atol=1e-5)


def _mean_over_tags(metric, logits, tags):
  values = [
    metric(tags[:, k], logits[:, k]) for k in range(3) if tags[:, k].any()
  ]
  return np.mean(values)


METRICS = {
  'poisson_d2': (
    Z + _draw(1, 0.3, seed=8)[:, 0],
    COUNTS,
    lambda z, y: oracle.d2_tweedie_score(y, np.exp(z), power=1),
  ),
  'mean_absolute_error': (
    2 * Z,
    COUNTS,
    lambda z, y: oracle.mean_absolute_error(y, z),
  ),
  'quadratic_kappa': (
    STEPS,
    GRADES,
    lambda z, y: oracle.cohen_kappa_score(
      (z > 0).sum(1), y, weights='quadratic'
    ),
  ),
  'ordinal_accuracy': (
    STEPS,
    GRADES,
    lambda z, y: oracle.accuracy_score(y, (z > 0).sum(1)),
  ),
  'macro_roc_auc': (
    _draw(3),
    TAGS,
    functools.partial(_mean_over_tags, oracle.roc_auc_score),
  ),
  'macro_average_precision': (
    _draw(3),
    TAGS,
    functools.partial(_mean_over_tags, oracle.average_precision_score),
  ),
}


@pytest.mark.parametrize('name', METRICS)
def test_metrics_equal_scikit_learn(name):
  """Whole, masked, in vmap; undefined and not a number."""
  outputs, labels, expected = METRICS[name]
  metric = jitted(getattr(metrics, name))
  every = np.ones(ROWS, bool)
  whole = metric(outputs, labels, every)
  assert whole.dtype == jnp.float32
  np.testing.assert_allclose(whole, expected(outputs, labels), rtol=1e-4)
  part = expected(outputs[WHERE], labels[WHERE])
  spoiled = np.where(
    WHERE.reshape(-1, *[1] * (outputs.ndim - 1)), outputs, np.nan
  )
  np.testing.assert_allclose(metric(spoiled, labels, WHERE), part, rtol=1e-4)
  both = jax.jit(jax.vmap(getattr(metrics, name), (0, None, None)))(
    np.stack([outputs, -outputs]), labels, WHERE
  )
  np.testing.assert_allclose(both[0], part, rtol=1e-4)
  assert both[1] != both[0]
  if name == 'poisson_d2':  # it does not depend on the unit
    scaled = metric(outputs - np.float32(np.log(4)), labels / 4, every)
    np.testing.assert_allclose(scaled, whole, rtol=1e-4)
  assert np.isnan(metric(outputs, labels, ~every))
  assert np.isnan(metric(np.full_like(outputs, np.nan), labels, every))
  broken = outputs.copy()
  broken[3] = np.nan
  assert np.isnan(metric(broken, labels, every))
  with pytest.raises(ValueError, match='expected'):
    metric(outputs, labels[:-1], every)


def test_undefined_metrics_are_nan():
  every = np.ones(ROWS, bool)
  low, high = np.full_like(STEPS, -1), np.full_like(STEPS, 1)
  zeros = np.zeros_like(GRADES)
  kappa = jitted(metrics.quadratic_kappa)
  assert np.isnan(kappa(low, zeros, every))
  assert kappa(high, zeros, every) == 0
  d2 = jitted(metrics.poisson_d2)
  for labels in (0 * COUNTS, 0 * COUNTS + np.float32(0.1)):
    assert np.isnan(d2(Z, labels, every))
  none = np.zeros_like(TAGS)
  assert np.isnan(jitted(metrics.macro_roc_auc)(_draw(3), none, every))


def test_probabilities_of_ordered_classes():
  rng = np.random.default_rng(0)
  crossing = rng.normal(0, 3, (50, CLASSES - 1))
  for logits in (crossing, crossing.astype(np.float32), jnp.asarray(crossing)):
    found = ordinal.probabilities(logits)
    assert type(found) is type(logits) or isinstance(found, jax.Array)
    assert found.dtype == logits.dtype and found.shape == (50, CLASSES)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(
      ordinal.median(found), ordinal.classes(logits)
    )
  falling = -np.sort(-crossing, axis=-1)
  above = special.expit(falling)
  found = ordinal.probabilities(falling)
  # The sum over the classes above a threshold is the sigmoid of its logit.
  upwards = found[:, ::-1].cumsum(-1)[:, ::-1][:, 1:]
  np.testing.assert_allclose(upwards, above, rtol=1e-9)
  np.testing.assert_allclose(ordinal.logits(found), falling, rtol=1e-6)
  same = jax.jit(ordinal.logits)(jnp.asarray(found, jnp.float32))
  np.testing.assert_allclose(same, falling, rtol=1e-4, atol=1e-5)
  edge = ordinal.logits(np.array([1.0, 0.0, 0.0]))
  np.testing.assert_array_equal(edge, [-80, -80])
  extreme = ordinal.probabilities(np.array([1e30, 1e4, -1e30], np.float32))
  np.testing.assert_allclose(extreme, [0, 0, 1, 0], atol=1e-30)


TASKS = (
  kinds.poisson('visits'),
  kinds.huber('price', delta=1.5),
  kinds.focal('fraud', gamma=1.0),
  kinds.ordinal('grade', CLASSES),
  kinds.multilabel('tags', 3),
)
MODEL = lplmtl.SharedBottom(
  TASKS, bottom=lplmtl.MLP((8,)), tower=lplmtl.MLP(())
)


def _rows():
  rng = np.random.default_rng(9)
  x = rng.normal(size=(ROWS, 4)).astype(np.float32)
  grades = np.digitize(x[:, 1] + 0.3 * rng.normal(size=ROWS), [-1, 0, 1])
  labels = {
    'visits': rng.poisson(np.exp(x[:, 0])),
    'price': x[:, 1] + rng.standard_t(2, ROWS),
    'fraud': x[:, 2] + rng.normal(size=ROWS) > 1.5,
    'grade': grades,
    'tags': (x[:, :3] + rng.normal(size=(ROWS, 3)) > 0).astype(np.int32),
  }
  where = {'visits': WHERE, 'tags': ~WHERE}
  weights = {'grade': rng.random(ROWS), 'tags': rng.random(ROWS)}
  return lplmtl.Batch(x, labels, where, weights)


@pytest.fixture(scope='module')
def fitted():
  rows = _rows()
  return lplmtl.fit(
    jax.random.key(0),
    MODEL,
    optax.adam(0.03),
    balancing.uncertainty(),
    rows,
    validation=rows,
    batch_size=50,
    num_epochs=15,
  )


@pytest.mark.slow
def test_every_kind_is_learned(fitted):
  """With missing labels, and weights of some tasks."""
  scores = fitted.history[-1]['validation']
  least = {'visits': 0.3, 'price': 0.1, 'fraud': 0.8, 'grade': 0.6, 'tags': 0.7}
  for task in TASKS:
    primary = next(iter(task.metric_fns))
    assert scores[task.name][primary][0] > least[task.name], scores[task.name]
    assert scores[task.name]['loss'][0] > 0


@pytest.mark.slow
def test_every_kind_is_saved(fitted, tmp_path):
  rows = _rows()
  checkpoint.save(tmp_path / 'model', MODEL, fitted.params)
  model, params, _ = checkpoint.load(tmp_path / 'model')
  assert model == MODEL and hash(model) == hash(MODEL)
  assert model.tasks == TASKS
  assert [dict(t.metric_fns) for t in model.tasks] == [
    dict(t.metric_fns) for t in TASKS
  ]
  assert model.tasks[0].label_range == (0, math.inf)
  contracts.assert_trees_equal(
    lplmtl.predict(model, params, rows.features),
    lplmtl.predict(MODEL, fitted.params, rows.features),
  )


@dataclasses.dataclass(frozen=True)
class _Own:
  power: float

  def __call__(self, predictions, labels):
    return jnp.abs(predictions[..., 0] - labels) ** self.power


def test_functions_with_parameters_are_data():
  lookup = {**blueprint.known_names(()), 'own:Own': _Own}
  task = lplmtl.Task('x', _Own(1.5))
  data = blueprint.to_data(task, lookup)
  assert data['fields']['loss_fn'] == {
    'class': 'own:Own',
    'fields': {'power': 1.5},
  }
  assert blueprint.from_data(data, lookup) == task
  mutable = dataclasses.make_dataclass('Mutable', [('power', float)])
  lookup = {**lookup, 'own:Mutable': mutable}
  with pytest.raises(ValueError, match='frozen dataclass, found .own:Mutable'):
    blueprint.from_data({'class': 'own:Mutable', 'fields': {}}, lookup)
  with pytest.raises(ValueError, match='cannot save .* in a frozen dataclass'):
    blueprint.to_data(mutable(1.5), lookup)


@pytest.mark.parametrize(
  'make, complaint',
  [
    (lambda: kinds.huber('a', delta=0), 'delta .* > 0, found 0'),
    (lambda: kinds.huber('a', delta=math.nan), 'delta .* found nan'),
    (lambda: kinds.focal('a', gamma=-1), 'gamma .* >= 0, found -1'),
    (lambda: kinds.ordinal('a', 2), "num_classes of task 'a' .* 3, found 2"),
    (lambda: kinds.ordinal('a', 3.0), 'num_classes .* found 3.0'),
    (lambda: kinds.multilabel('a', 1), "num_labels of task 'a' .* found 1"),
  ],
)
def test_bad_settings(make, complaint):
  with pytest.raises(ValueError, match=complaint):
    make()


@pytest.mark.parametrize(
  'name, change, complaint',
  [
    ('visits', -1, "labels of task 'visits' in data must be from 0 to inf"),
    ('grade', CLASSES, 'must be from 0 to 3, found 0.0 to 4.0'),
    ('grade', 1.5, 'must be class numbers, found 1.5'),
    ('tags', 2, 'must be from 0 to 1, found 0.0 to 2.0'),
  ],
)
def test_labels_out_of_range(name, change, complaint):
  rows = _rows()
  labels = np.array(rows.labels[name], float)
  labels[:9] = change
  rows = rows._replace(labels={**rows.labels, name: labels})
  with pytest.raises(ValueError, match=complaint):
    arrays.read_batch(TASKS, rows, 'data')
