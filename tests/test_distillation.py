"""Distillation: soft losses, labels of a teacher, teachers, and a fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

import lplmtl
from lplmtl import balancing, blueprint, ordinal, tasks
from lplmtl.compression import distillation, soft, teachers
from lplmtl.training import evaluation, microbatch

ROWS = 60
KINDS = {
  'binary': tasks.binary('binary'),
  'focal': tasks.focal('focal'),
  'multiclass': tasks.multiclass('multiclass', 3),
  'ordinal': tasks.ordinal('ordinal', 4),
  'multilabel': tasks.multilabel('multilabel', 3),
  'regression': tasks.regression('regression'),
  'huber': tasks.huber('huber', 0.5),
  'poisson': tasks.poisson('poisson'),
}
TASKS = tuple(KINDS.values())
PLAIN = tasks.binary('plain')  # a task without a teacher
# Whose losses differ in kind; the first metric of each is enough, and compiles
# in a third of the time.
FITTED = tuple(
  dataclasses.replace(
    KINDS[name], metric_fns=dict([*KINDS[name].metric_fns.items()][:1])
  )
  for name in ('binary', 'multiclass', 'ordinal', 'regression', 'poisson')
)
every_kind = pytest.mark.parametrize('task', TASKS, ids=list(KINDS))


def _outputs(task, seed=0, num_rows=ROWS):
  shape = num_rows, task.num_outputs
  drawn = np.random.default_rng(seed).normal(0, 1.5, shape)
  # Thresholds fall, or the probability of a class would be negative.
  return -np.sort(-drawn) if task.name == 'ordinal' else drawn


def _draw_labels(task, logits, seed=1):
  """Draws labels from what the outputs say."""
  rng = np.random.default_rng(seed)
  if task.name == 'poisson':
    return rng.poisson(np.exp(logits[:, 0])).astype(np.float32)
  if task.name in ('regression', 'huber'):
    return (logits[:, 0] + rng.normal(size=len(logits))).astype(np.float32)
  if task.name == 'multiclass':
    return (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
  if task.name == 'ordinal':
    noise = rng.logistic(size=(len(logits), 1))
    return (logits + noise > 0).sum(axis=1)
  yes = (logits + rng.logistic(size=logits.shape) > 0).astype(np.int32)
  return yes if task.name == 'multilabel' else yes[:, 0]


@every_kind
def test_a_student_wants_to_be_its_teacher(task):
  """The gradient is 0 at the teacher's outputs, and the loss grows around."""
  teacher = jnp.asarray(_outputs(task), jnp.float32)
  loss = distillation.distilled(task).loss_fn
  labels = {
    'hard': jnp.asarray(_draw_labels(task, _outputs(task))),
    'soft': teacher,
    'known': jnp.ones(ROWS, bool),
  }

  @jax.jit
  def measure(z):
    values, pull = jax.vjp(lambda z: loss(z, labels), z)
    return values, pull(jnp.ones(ROWS))[0]

  least, gradient = measure(teacher)
  np.testing.assert_allclose(gradient, 0, atol=1e-6)
  for seed in range(3):
    assert (measure(teacher + _outputs(task, 5 + seed))[0] > least).all()


@pytest.mark.parametrize('temperature', [0.5, 1, 3])
def test_soft_losses_follow_the_paper(temperature):
  """T^2 times the divergence at temperature T, plus a constant."""
  student, teacher = (
    np.random.default_rng(seed).normal(0, 3, (9, 4)) for seed in (0, 1)
  )
  p, q = (special.softmax(x / temperature, 1) for x in (student, teacher))
  expected = temperature**2 * special.rel_entr(q, p).sum(1)
  expected += special.entr(special.softmax(teacher, 1)).sum(1)
  found = soft.SoftClasses(temperature)(jnp.array(student), jnp.array(teacher))
  np.testing.assert_allclose(found, expected, rtol=1e-4)

  # Of two classes: the same with one logit, and 0 for the other.
  pair = (
    np.stack([student, 0 * student], -1),
    np.stack([teacher, 0 * teacher], -1),
  )
  found = soft.SoftDecisions(temperature)(student, teacher)
  expected = soft.SoftClasses(temperature)(
    *(jnp.array(x.reshape(-1, 2)) for x in pair)
  )
  np.testing.assert_allclose(found, expected.reshape(9, 4).mean(1), rtol=1e-4)


def test_temperature_keeps_the_size_of_gradients():
  """Hinton et al.: at a high T, a quarter of the distance of the logits."""
  student, teacher = (jnp.array(_outputs(PLAIN, seed)) for seed in (0, 1))
  loss = soft.SoftDecisions(200.0)
  found = jax.grad(lambda z: loss(z, teacher).sum())(student)
  np.testing.assert_allclose(found, (student - teacher) / 4, rtol=1e-2)


def test_share_and_rows_that_only_the_teacher_labels():
  task = KINDS['regression']
  z = jnp.zeros((3, 1))
  rows = lplmtl.Batch(
    np.zeros((3, 1)),
    {'regression': np.array([2.0, np.nan, 4.0])},
    {'regression': np.array([True, False, True])},
  )
  teacher = {'regression': np.array([[4.0], [2.0], [0.0]])}
  batch = distillation.with_teacher([task], rows, teacher)
  assert batch.where is None
  loss = distillation.distilled(task, share=0.25).loss_fn
  # Halves of squares: 2 and 8, mixed 3 to 1; the teacher's alone; 8 and 0.
  expected = [0.75 * 2 + 0.25 * 8, 2, 0.75 * 8]
  np.testing.assert_allclose(loss(z, batch.labels['regression']), expected)


def test_a_task_without_labels():
  task = KINDS['multilabel']
  rows = lplmtl.Batch(np.zeros((2, 1)), {})
  batch = distillation.with_teacher([task], rows, {task.name: np.ones((2, 3))})
  labels = batch.labels[task.name]
  assert labels['hard'].shape == (2, 3) and not labels['known'].any()


@pytest.fixture(scope='module')
def teacher():
  """(features, {task: outputs}) of a teacher, linear in the features."""
  x = np.random.default_rng(3).normal(size=(ROWS, 4)).astype(np.float32)
  outputs = {}
  for i, task in enumerate((*TASKS, PLAIN)):
    kernel = np.random.default_rng(10 + i).normal(size=(4, task.num_outputs))
    z = x @ kernel
    outputs[task.name] = -np.sort(-z) if task.name == 'ordinal' else z / 2
  return x, outputs


@pytest.fixture(scope='module')
def rows(teacher):
  """Rows with labels, a third of which is missing."""
  x, outputs = teacher
  labels = {
    task.name: _draw_labels(task, outputs[task.name])
    for task in (*TASKS, PLAIN)
  }
  labels['regression'][1] = np.nan
  where = {task.name: np.arange(ROWS) % 3 != 1 for task in (*TASKS, PLAIN)}
  return lplmtl.Batch(x, labels, where)


@pytest.fixture(scope='module')
def fitted(teacher, rows):
  """(model, result) of a student of several kinds, and of a task of its own."""
  todo = *(distillation.distilled(task) for task in FITTED), PLAIN
  model = lplmtl.SharedBottom(
    todo, bottom=lplmtl.MLP((16,)), tower=lplmtl.MLP((4,))
  )
  taught = {task.name: teacher[1][task.name] for task in FITTED}
  where = {task.name: rows.where[task.name] for task in (*FITTED, PLAIN)}
  batch = distillation.with_teacher(FITTED, rows._replace(where=where), taught)
  return model, lplmtl.fit(
    jax.random.key(0), model, optax.adam(2e-2), balancing.uncertainty(), batch,
    validation=batch, batch_size=20, num_epochs=60, eval_every=60,
  )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('task', FITTED, ids=lambda task: task.name)
def test_fit_teaches(fitted, teacher, task):
  """Rows without a label, too, are as the teacher says."""
  model, result = fitted
  x, outputs = teacher
  alone = np.arange(ROWS) % 3 == 1
  found = evaluation.predict(model, result.params, x)[task.name]
  # Not the logits, which of classes may have any mean.
  found, expected = (
    _means(task, z)[alone] for z in (found, outputs[task.name])
  )
  assert np.square(found - expected).mean() < 0.25 * expected.var()


@pytest.mark.slow
def test_metrics_are_those_of_the_hard_labels(fitted, rows):
  model, result = fitted
  original = model.clone(tasks=(*FITTED, PLAIN))
  evaluate = jax.jit(evaluation.make_eval_step(original, original.tasks))
  found = evaluate(result.params, jax.tree.map(jnp.asarray, rows))
  reported = result.history[-1]['validation']
  for task in (*FITTED, PLAIN):
    for name in task.metric_fns:
      np.testing.assert_allclose(
        reported[task.name][name], found[task.name][name], rtol=1e-5
      )


def test_microbatches(teacher, rows):
  """The labels divide like others: the parts sum to the whole."""
  task = KINDS['multilabel']
  outputs = teacher[1][task.name]
  batch = distillation.with_teacher([task], rows, {task.name: outputs})
  batch = jax.tree.map(jnp.asarray, batch._replace(features=outputs / 2))
  loss_fn = distillation.distilled(task, share=0.5).loss_fn

  def loss(part, key):
    del key
    return loss_fn(part.features, part.labels[task.name]).sum()

  whole, parts = (
    microbatch.Rows(batch, jax.random.key(0), count).sum_over_microbatches(loss)
    for count in (1, 3)
  )
  np.testing.assert_allclose(parts, whole, rtol=1e-4)


@every_kind
def test_a_distilled_task_is_data(task):
  """So that a model of it can be saved."""
  lookup = blueprint.known_names(())
  given = distillation.distilled(task, share=0.5)
  found = blueprint.from_data(blueprint.to_data(given, lookup), lookup)
  assert found == given and found.loss_fn.soft == given.loss_fn.soft
  assert dict(found.metric_fns) == dict(given.metric_fns)


def test_labels_of_another_form():
  task = distillation.distilled(KINDS['binary'])
  z = jnp.zeros((ROWS, 1))
  with pytest.raises(ValueError, match='with_teacher; found an array'):
    task.loss_fn(z, jnp.zeros(ROWS))
  with pytest.raises(ValueError, match=r"with_teacher; found \['hard'\]"):
    task.metric_fns['auc'](z, {'hard': jnp.zeros(ROWS)}, jnp.ones(ROWS, bool))


@pytest.mark.parametrize(
  ('name', 'labels', 'logits', 'complaint'),
  [
    ('other', [0, 1], [[0.0], [1.0]], r"labels \['other'\], which are not"),
    ('binary', [0, 1], [0.0, 1.0], r'must be \[2, ..., 1\], found \(2,\)'),
    ('binary', [0, 1], [[0.0]] * 3, r'must be \[2, ..., 1\], found \(3, 1\)'),
    ('binary', [0, 1], [[0.0], [np.nan]], 'not all finite'),
    ('binary', [0, 2], [[0.0], [1.0]], 'must be from 0 to 1, found 0 to 2'),
    ('binary', [[0], [1]], [[0.0], [1.0]], r'must be \(2,\) .* found \(2, 1\)'),
    ('multiclass', [0, 3], [[0.0] * 3] * 2, 'must be from 0 to 2'),
  ],
)
def test_a_teacher_that_does_not_fit(name, labels, logits, complaint):
  batch = lplmtl.Batch(np.zeros((2, 1)), {name: np.array(labels)})
  with pytest.raises(ValueError, match=complaint):
    distillation.with_teacher(TASKS, batch, {name: np.array(logits)})


@pytest.mark.parametrize(
  ('task', 'settings', 'complaint'),
  [
    (KINDS['binary'], {'share': 1.5}, 'share must be from 0 to 1, found 1.5'),
    (KINDS['binary'], {'temperature': 0}, 'temperature must be a number > 0'),
    (KINDS['poisson'], {'temperature': 2}, 'temperature of a count must be 1'),
    (lplmtl.Task('own', optax.l2_loss), {}, 'expected a loss of lplmtl.losses'),
  ],
)
def test_bad_settings(task, settings, complaint):
  with pytest.raises(ValueError, match=complaint):
    distillation.distilled(task, **settings)


def _means(task, logits):
  if task.name == 'multiclass':
    return special.softmax(logits, -1)
  if task.name in ('regression', 'huber'):
    return logits
  return np.exp(logits) if task.name == 'poisson' else special.expit(logits)


@every_kind
def test_the_mean_of_an_ensemble(task):
  members = np.stack([_outputs(task, seed) for seed in range(3)])
  found = teachers.ensemble_logits(task, list(members))
  assert found.shape == members.shape[1:] and found.dtype == np.float32
  np.testing.assert_allclose(
    _means(task, found), _means(task, members).mean(0), rtol=1e-4
  )


@every_kind
def test_predictions_of_other_libraries(task):
  """Probabilities, rates and numbers become outputs that mean the same."""
  outputs = _outputs(task)
  means = _means(task, outputs)
  if task.name == 'ordinal':
    means = ordinal.probabilities(outputs)
  elif task.num_outputs == 1:
    means = means[:, 0]
  found = teachers.to_logits(task, means)
  np.testing.assert_allclose(
    _means(task, found), _means(task, outputs), rtol=1e-4
  )
  assert np.isfinite(teachers.to_logits(task, np.round(means))).all()


@pytest.mark.parametrize(
  ('name', 'predictions', 'complaint'),
  [
    ('binary', [-3.0, 2.0], 'raw scores of a booster are logits already'),
    ('binary', [0.5, np.nan], 'expected finite predictions from 0 to 1'),
    ('multiclass', [0.5, 0.1], r'shape \[N, 3\], found \(2,\)'),
    ('ordinal', [[0.2] * 3], r'shape \[N, 4\], found \(1, 3\)'),
    ('poisson', [-1.0], 'expected finite predictions from 0 to inf'),
  ],
)
def test_predictions_that_do_not_fit(name, predictions, complaint):
  with pytest.raises(ValueError, match=complaint):
    teachers.to_logits(KINDS[name], predictions)


def test_members_that_differ():
  with pytest.raises(
    ValueError, match=r'of one shape, found \[\(2, 1\), \(3, 1\)'
  ):
    teachers.ensemble_logits(PLAIN, [np.zeros((2, 1)), np.zeros((3, 1))])
  with pytest.raises(ValueError, match='of one shape, found'):
    teachers.ensemble_logits(PLAIN, [])


@pytest.mark.parametrize('name', ['multiclass', 'ordinal', 'poisson', 'huber'])
def test_a_good_teacher_passes_and_a_poor_one_does_not(name):
  task = KINDS[name]
  outputs = _outputs(task, num_rows=400)
  labels = _draw_labels(task, outputs)
  found = teachers.check_teacher(task, outputs, labels)
  primary = next(iter(task.metric_fns))
  expected = task.metric_fns[primary](
    jnp.asarray(outputs, jnp.float32), labels, jnp.ones(400, bool)
  )
  np.testing.assert_allclose(found[primary], expected, rtol=1e-5)
  with pytest.raises(ValueError, match='on the validation rows is .* constant'):
    teachers.check_teacher(task, -outputs[:, ::-1], labels)
  # As good as nothing: the same outputs in every row.
  with pytest.raises(ValueError, match='on the validation rows is .* constant'):
    teachers.check_teacher(task, np.zeros_like(outputs) + 0.1, labels)


def test_a_teacher_that_stopped_early():
  """Ranks as well as a rival, but its probabilities are still the base rate."""
  outputs = _outputs(PLAIN, num_rows=400)
  labels = _draw_labels(PLAIN, outputs)
  where = np.arange(400) % 5 > 0
  labels = np.where(where, labels, -7)
  stopped = {'logits': outputs / 20, 'where': where}
  teachers.check_teacher(PLAIN, labels=labels, **stopped)
  with pytest.warns(UserWarning, match='loss .* that of the student .* better'):
    teachers.check_teacher(
      PLAIN, labels=labels, rivals={'the student': outputs}, **stopped
    )
  with pytest.raises(ValueError, match='no validation row has a label'):
    teachers.check_teacher(PLAIN, outputs, labels, where=np.zeros(400, bool))


def test_the_loss_of_a_constant():
  labels, where = np.array([0, 1, 0, 0, 1, 9]), np.arange(6) < 5
  found = teachers.constant_loss(tasks.binary('a'), labels, where)
  p = 0.4
  expected = -p * np.log(p) - (1 - p) * np.log(1 - p)
  np.testing.assert_allclose(found, expected, 1e-5)
  numbers = np.array([1.0, 3.0, 8.0], np.float32)
  task = lplmtl.Task('b', lplmtl.losses.squared_error)
  found = teachers.constant_loss(task, numbers)
  np.testing.assert_allclose(found, numbers.var(), 1e-6)
  found = teachers.constant_loss(tasks.multiclass('c', 4), np.arange(8) % 4)
  np.testing.assert_allclose(found, np.log(4), 1e-5)


def test_a_loss_of_ones_own():
  """Whoever brings a loss brings a soft loss, too."""
  loss = distillation.Distilled(
    lambda z, y: jnp.abs(z[:, 0] - y) ** 3,
    lambda z, u: jnp.abs(z - u)[:, 0],
    share=0.5,
  )
  labels = {
    'hard': jnp.zeros(2), 'soft': jnp.ones((2, 1)),
    'known': jnp.array([False, True]),
  }  # fmt: skip
  assert loss(jnp.full((2, 1), 3.0), labels).tolist() == [2, 0.5 * 27 + 0.5 * 2]
