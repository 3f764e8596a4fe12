"""The tables that every architecture is tested through, and shared helpers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import losses, resume, tasks
from tests import reference

TASKS = (
  tasks.binary('zebra'),  # not in alphabetical order, as JAX sorts dicts
  tasks.multiclass('apple', 3),
  tasks.regression('mango'),
)
NAMES = tuple(task.name for task in TASKS)
# In the order in which things happen, which is not the alphabet's.
CHAIN = (tasks.binary('view'), tasks.binary('click'), tasks.binary('buy'))
NUM_CATEGORIES = (3, 5)

SMALL = lplmtl.MLP((6,))
_TOWER = lplmtl.MLP((4,))


def architectures(tasks=TASKS, encoder=None):
  """`{name: module}`, each small and without dropout.

  Layers in towers and in experts are alike for all: a few models have several.
  """
  bare = {'tasks': tasks, 'encoder': encoder, 'tower': lplmtl.MLP(())}
  common = bare | {'tower': _TOWER}
  deep = {'levels': (lplmtl.MLP((5, 6)), SMALL)}
  two = {'levels': (lplmtl.MLP((5,)), SMALL)}
  counts = {'num_specific': 2, 'num_shared': 3}
  return {
    'single_task': lplmtl.SingleTask(bottom=SMALL, **bare),
    'shared_bottom': lplmtl.SharedBottom(bottom=SMALL, **bare),
    'soft_sharing': lplmtl.SoftSharing(bottom=SMALL, **bare),
    'cross_stitch': lplmtl.CrossStitch(**deep, **bare),
    'tensor_factorization': lplmtl.TensorFactorization(
      bottom=lplmtl.MLP((6, 5)), ranks=(4, 3, 2), **bare
    ),
    'omoe': lplmtl.OMoE(expert=SMALL, num_experts=4, **bare),
    'stacked_mmoe': lplmtl.StackedMMoE(num_experts=3, **two, **bare),
    'dselect_k': lplmtl.DSelectK(expert=SMALL, num_experts=4, **bare),
    'mtan': lplmtl.MTAN(**two, **common),
    'adatt': lplmtl.AdaTT(num_specific=2, num_shared=2, **two, **bare),
    'stem': lplmtl.STEM(expert=SMALL, num_specific=2, num_shared=3, **bare),
    'mmoe': lplmtl.MMoE(expert=SMALL, num_experts=4, **bare),
    'cgc': lplmtl.CGC(expert=SMALL, **counts, **bare),
    'ple': lplmtl.PLE(**deep, **counts, **common),
    'sple_concat': lplmtl.SPLE(
      top='concat', num_top=2, **deep, **counts, **common
    ),
    'sple_identity': lplmtl.SPLE(
      top='identity', num_top=2, levels=(SMALL, SMALL), **counts, **bare
    ),
    'sple_shared': lplmtl.SPLE(
      top='shared', num_top=2, **two, **counts, **bare
    ),
  }


def chains(encoder=None, tasks=CHAIN):
  """`{name: module}` for tasks in a chain."""
  common = {'tasks': tasks, 'encoder': encoder, 'bottom': SMALL}
  return {
    'esmm': lplmtl.ESMM(tower=_TOWER, **common),
    'aitm': lplmtl.AITM(tower=lplmtl.MLP(()), **common),
  }


def encoder():
  return lplmtl.TabularEncoder(NUM_CATEGORIES, embed_dim=2)


def features(rows=7, seed=0):
  """Encoded rows: two category columns and three numbers."""
  rng = np.random.default_rng(seed)
  categories = [rng.integers(0, n, rows) for n in NUM_CATEGORIES]
  return {
    'categories': jax.device_put(np.stack(categories, axis=1).astype(np.int32)),
    'numeric': jax.device_put(rng.normal(size=(rows, 3)).astype(np.float32)),
  }


def batch(rows=7, seed=0):
  rng = np.random.default_rng(seed + 1)
  labels = {
    'zebra': jax.device_put(rng.integers(0, 2, rows)),
    'apple': jax.device_put(rng.integers(0, 3, rows)),
    'mango': jax.device_put(rng.normal(size=rows).astype(np.float32)),
  }
  return lplmtl.Batch(features(rows, seed), labels)


def random_params(model, x, seed=0):
  """Random parameters, drawn by NumPy.

  `model.init` compiles a random draw for each shape: seconds a model, while
  most tests do not care where their parameters come from.
  """
  shapes = jax.eval_shape(model.init, jax.random.key(0), x).get('params', {})
  rng = np.random.default_rng(seed)

  def draw(leaf):
    fan_in = leaf.shape[-2] if leaf.ndim > 1 else 4
    values = rng.normal(size=leaf.shape) * fan_in**-0.5
    return jax.device_put(values.astype(leaf.dtype))  # jnp.asarray compiles

  return jax.tree.map(draw, shapes)


def double_precision():
  """The context in which arrays may be float64."""
  if hasattr(jax, 'enable_x64'):  # jax 0.8 on
    return jax.enable_x64(True)
  from jax import experimental

  return experimental.enable_x64(True)


def assert_trees_close(actual, expected, atol=1e-5, rtol=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=rtol),
    actual,
    expected,
  )


def assert_trees_equal(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def assert_same_structure(actual, expected):
  describe = lambda x: (jnp.shape(x), jnp.asarray(x).dtype)  # noqa: E731
  assert jax.tree.map(describe, actual) == jax.tree.map(describe, expected)


def by_reference(name, task_names, params, rows):
  """Predictions `[B, K]` of each task, row by row, by the loops of `reference`."""
  params = jax.tree.map(np.asarray, params)
  kind, _, top = name.partition('_')
  if kind == 'sple':
    slow = lambda row: reference.sple(params, task_names, row, top)  # noqa: E731
  else:
    loop = getattr(reference, name)
    slow = lambda row: loop(params, task_names, row)  # noqa: E731
  found = [slow(row) for row in np.float64(rows)]
  return {task: np.stack([row[task] for row in found]) for task in found[0]}


def assert_as_reference(name, predictions, task_names, params, rows):
  """Predictions for each row, `[B, D]`, against the loops of `reference`."""
  slow = by_reference(name, task_names, params, rows)
  for task, expected in slow.items():
    np.testing.assert_allclose(
      predictions[task], expected, atol=2e-5, rtol=2e-5
    )


class Tiny:
  """The smallest model: one shared vector, one scale of each task's own."""

  tasks = (tasks.binary('a'), tasks.regression('b'))

  def init(self, rngs, features):
    shared = jax.random.normal(rngs['params'], (features.shape[-1],))
    return {'params': {'shared': shared, 'a': jnp.ones(1), 'b': jnp.ones(1)}}

  def apply(self, variables, features, *, train=False, rngs=None):
    params = variables['params']
    hidden = jnp.tanh(features @ params['shared'])[:, None]
    return {name: hidden * params[name][None] for name in 'ab'}, {}

  def is_shared(self, path):
    return path[0] == 'shared'


def tiny_rows(number=16):
  x = np.random.default_rng(0).normal(size=(number, 4)).astype(np.float32)
  return lplmtl.Batch(x, {'a': (x[:, 0] > x[:, 1]) * 1, 'b': x[:, 2] - x[:, 3]})


def by_gramian(scope='shared'):
  """A method whose weights depend on the whole Gramian, without a solver."""

  def update(losses, state, *, gramian, **extra):
    return gramian.sum(axis=1) / jnp.trace(gramian), state

  return lplmtl.Balancer(
    lambda key, num_tasks: (), update, needs_gramian=True, scope=scope
  )


def reached(model, params, batch):
  """`(predictions [S, ...], which tasks a parameter's gradient comes from [T])`.

  A gradient's program has three times the operations of a prediction's. So where
  nothing stops a gradient, tasks are those whose predictions a leaf changes.

  Args:
    model: of T tasks.
    params: sets of parameters, stacked, `[S, ...]`; a relu unit may be off for
      all rows of one of them.
    batch: with labels of all tasks.
  """
  apply = lambda p: model.apply({'params': p}, batch.features)[0]  # noqa: E731
  predict = jax.jit(jax.vmap(apply)).lower(params).compile()
  predictions = jax.device_get(predict(params))
  one = jax.tree.map(lambda x: x[0], params)
  stopped = re.findall(
    r'\[([\d,]+)\] = stop_gradient', str(jax.make_jaxpr(apply)(one))
  )
  # A softmax stops the gradient of its maximum, `[..., 1]`.
  if not all(shape.endswith(',1') for shape in stopped):
    return predictions, _gradients_reach(model, params, batch)
  leaves, structure = jax.tree.flatten(params)
  found = []
  for i, leaf in enumerate(leaves):
    noise = np.random.default_rng(i).normal(size=leaf.shape)
    other = [*leaves[:i], np.float32(leaf + noise), *leaves[i + 1 :]]
    changed = jax.device_get(predict(structure.unflatten(other)))
    names = [task.name for task in model.tasks]
    found.append([(changed[k] != predictions[k]).any() for k in names])
  return predictions, structure.unflatten(map(np.array, found))


def _gradients_reach(model, params, batch):
  """The tasks whose gradient is not 0, `[T]`."""

  def weigh(params, weights):
    predictions, _ = model.apply({'params': params}, batch.features)
    return losses.task_losses(model.tasks, predictions, batch)[0] @ weights

  one_task = np.eye(len(model.tasks), dtype=np.float32)
  of_tasks = jax.vmap(jax.grad(weigh), (None, 0))
  found = jax.jit(jax.vmap(of_tasks, (0, None)))(params, one_task)
  return jax.tree.map(
    lambda x: np.any(x, axis=(0, *range(2, x.ndim))), jax.device_get(found)
  )


def assert_shared_as_reached(model, found):
  """`is_shared` against the tasks that reach each leaf, `[T]`: at least one."""

  def check(path, tasks):
    assert tasks.any(), jax.tree_util.keystr(path)
    is_shared = model.is_shared(tuple(part.key for part in path))
    assert is_shared == (tasks.sum() > 1), jax.tree_util.keystr(path)

  jax.tree_util.tree_map_with_path(check, found)


class Interrupting(resume.Checkpoints):
  """Stops a run at its n-th pause."""

  def __init__(self, directory, pauses, **options):
    super().__init__(directory, **options)
    self.pauses = pauses

  def next_pause(self, progress):
    """By steps only: on a busy machine a second holds few."""
    every = self.every_steps or progress.num_steps
    return min((progress.step // every + 1) * every, progress.num_steps)

  def save_if_due(self, progress):
    self.pauses -= 1
    if self.pauses == 0:
      self.stop.set()
    super().save_if_due(progress)


def fit_in_pieces(fit, folder, pauses, **options):
  """Calls `fit(keeper)` until it ends, stopped after each number of pauses."""
  for count in pauses:
    with (
      pytest.raises(resume.Interrupted),
      Interrupting(folder, count, **options) as keeper,
    ):
      fit(keeper)
  with resume.Checkpoints(folder, **options) as keeper:
    return fit(keeper)
