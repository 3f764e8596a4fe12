"""The docstrings' formulas, for random sizes of every architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import architectures, tasks
from lplmtl.compression import count_parameters
from tests import contracts, reference


def _random(rng):
  number = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
  widths = lambda: tuple(number(1, 9) for _ in range(number(1, 2)))  # noqa: E731
  num_tasks, num_levels = number(2, 4), number(2, 3)
  return {
    'D': number(1, 9), 'T': num_tasks, 'E': number(1, 5),
    'E_binary': 2 ** number(1, 3), 'k': number(1, 2), 'num_top': number(1, 3),
    'specific': [[number(0, 3) for _ in range(num_tasks)] for _ in range(num_levels)],
    'at_least_one': [[number(1, 3) for _ in range(num_tasks)] for _ in range(num_levels)],
    'shared': [number(1, 3) for _ in range(num_levels)],
    'by_level': [number(1, 4) for _ in range(num_levels)], 'expert': widths(),
    'bottom': widths(), 'tower': widths(), 'ranks': tuple(number(1, 9) for _ in range(3)),
    'levels': [widths() for _ in range(num_levels)],
    'blocks': [(number(1, 9),) for _ in range(num_levels)],
    'num_outputs': [number(1, 3) for _ in range(num_tasks)],
  }  # fmt: skip


def _counts(name, s):
  """Numbers of experts, as the architecture takes them."""
  if name == 'stacked_mmoe':
    return {'num_experts': tuple(s['by_level'])}
  own = s['at_least_one' if name in ('adatt', 'stem') else 'specific']
  own, shared = tuple(map(tuple, own)), tuple(s['shared'])
  if name in ('cgc', 'stem'):
    own, shared = own[0], shared[0]
  if name == 'sple':
    own, shared = own[:-1], shared[:-1]
  return {'num_specific': own, 'num_shared': shared}


def _model(name, s):
  """The architecture with these sizes."""
  make = lplmtl.MLP
  outputs = [1] * s['T'] if name in ('esmm', 'aitm') else s['num_outputs']
  todo = tuple(
    tasks.binary(f't{i}') if k == 1 else tasks.multiclass(f't{i}', k)
    for i, k in enumerate(outputs)
  )
  levels = s['blocks'] if name == 'mtan' else s['levels']
  offered = {
    'tasks': todo, 'expert': make(s['expert']), 'bottom': make(s['bottom']),
    'tower': make(s['tower']), 'levels': tuple(map(make, levels)),
    'num_experts': s['E_binary'] if name == 'dselect_k' else s['E'],
    'num_selected': s['k'], 'num_top': s['num_top'], 'ranks': s['ranks'],
    **_counts(name, s),
  }  # fmt: skip
  cls = CLASSES[name]
  fields = cls.__dataclass_fields__
  return cls(**{k: v for k, v in offered.items() if k in fields})


CLASSES = {
  cls.__module__.rsplit('.', 1)[-1]: cls
  for cls in (*architectures.ARCHITECTURES, *architectures.CHAINS)
}


@pytest.mark.parametrize('name', CLASSES)
def test_formula(name):
  rng = np.random.default_rng(0)
  for _ in range(8):
    sizes = _random(rng)
    x = jax.ShapeDtypeStruct((1, sizes['D']), jnp.float32)
    model = _model(name, sizes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    expected = getattr(reference, f'{name}_size')(sizes)
    assert count_parameters(shapes) == expected, sizes


def test_own_encoders_are_counted():
  """single_task and soft_sharing have T of them, STEM T + 1, the others one."""
  encoder = contracts.encoder()
  x = contracts.features()
  each = 2 * sum(contracts.NUM_CATEGORIES)
  with_it = contracts.architectures(encoder=encoder)
  for name, model in with_it.items():
    params = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    own = {k: v for k, v in params.items() if k.startswith('encoder')}
    copies = {'single_task': 3, 'soft_sharing': 3, 'stem': 4}.get(name, 1)
    assert count_parameters(own) == copies * each
