"""The docstrings' formulas, for random sizes of every architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import architectures, tasks
from lplmtl.compression import count_parameters
from tests import contracts


def mlp(depth, widths):
  """Kernels and biases of an MLP over `depth` inputs."""
  return sum(
    (d + 1) * h for d, h in zip((depth, *widths), widths, strict=False)
  )


def towers(sizes, depth):
  """Bodies and heads, one a task."""
  body = mlp(depth, sizes['tower'])
  return sum(body + (sizes['tower'][-1] + 1) * k for k in sizes['num_outputs'])


def gates(inputs, outputs):
  """Kernels without bias; none where there is one expert to choose from."""
  return inputs * outputs if outputs > 1 else 0


def shared_bottom(s):
  return mlp(s['D'], s['bottom']) + towers(s, s['bottom'][-1])


def single_task(s):
  return s['T'] * mlp(s['D'], s['bottom']) + towers(s, s['bottom'][-1])


soft_sharing = single_task


def cross_stitch(s):
  total, depth = 0, s['D']
  for widths in s['levels']:
    total += s['T'] * mlp(depth, widths) + s['T'] ** 2 * widths[-1]
    depth = widths[-1]
  return total + towers(s, depth)


def tensor_factorization(s):
  total, depth = 0, s['D']
  for h in s['bottom']:
    a, b, c = (
      min(r, n) for r, n in zip(s['ranks'], (depth, h, s['T']), strict=True)
    )
    total += a * b * c + depth * a + h * b + s['T'] * (c + h)
    depth = h
  return total + towers(s, depth)


def omoe(s):
  own = s['E'] * mlp(s['D'], s['expert']) + gates(s['D'], s['E'])
  return own + towers(s, s['expert'][-1])


def mmoe(s):
  return omoe(s) + (s['T'] - 1) * gates(s['D'], s['E'])


def stacked_mmoe(s):
  total, depth = 0, s['D']
  for i, widths in enumerate(s['levels']):
    count = s['by_level'][i]
    readers = [*s['by_level'], s['T']][i + 1]
    total += count * mlp(depth, widths) + gates(s['D'], count) * readers
    depth = widths[-1]
  return total + towers(s, depth)


def dselect_k(s):
  bits = s['E_binary'].bit_length() - 1
  gate = s['k'] * (s['D'] + 1) * bits + gates(s['D'], s['k'])
  own = s['E_binary'] * mlp(s['D'], s['expert'])
  return own + s['T'] * gate + towers(s, s['expert'][-1])


def level(depth, widths, specific, shared):
  """Experts, and the tasks' gates."""
  own = sum(gates(depth, count + shared) for count in specific)
  return (sum(specific) + shared) * mlp(depth, widths) + own


def ple(s, levels=None):
  total, depth = 0, s['D']
  levels = s['levels'] if levels is None else levels
  for i, widths in enumerate(levels):
    total += level(depth, widths, s['specific'][i], s['shared'][i])
    if i + 1 < len(levels):
      total += gates(depth, sum(s['specific'][i]) + s['shared'][i])
    depth = widths[-1]
  return total + towers(s, depth)


def cgc(s):
  return ple(s, [s['expert']])


def sple(s):
  """top='concat': a tower reads its own features and the mixture."""
  *below, top = s['levels']
  total, inputs = 0, s['D']
  for widths, specific, shared in zip(
    below, s['specific'], s['shared'], strict=False
  ):
    total += level(inputs, widths, specific, shared)
    total += gates(inputs, sum(specific) + shared)
    inputs = widths[-1]
  total += s['num_top'] * mlp(inputs, top)
  total += s['T'] * gates(inputs, s['num_top'])
  return total + towers(s, inputs + top[-1])


def mtan(s):
  total, depth, below = 0, s['D'], None
  for (h,) in s['blocks']:
    total += (depth + 1) * h + (h + 1) * h
    own = 2 * (h + 1) * h
    if below is not None:
      total += (below + 1) * h
      own = (2 * h + 1) * h + (h + 1) * h
    total += s['T'] * own
    depth = below = h
  return total + towers(s, depth)


def adatt(s):
  total, depth = 0, s['D']
  for i, widths in enumerate(s['levels']):
    own, shared = sum(s['at_least_one'][i]), s['shared'][i]
    total += (own + shared) * mlp(depth, widths)
    total += s['T'] * gates(depth, own + shared) + own
    if i + 1 < len(s['levels']):
      total += gates(depth, own + shared) + shared
    depth = widths[-1]
  return total + towers(s, depth)


def stem(s):
  everyone = sum(s['at_least_one'][0]) + s['shared'][0]
  own = everyone * mlp(s['D'], s['expert']) + s['T'] * gates(s['D'], everyone)
  return own + towers(s, s['expert'][-1])


def esmm(s):
  return single_task({**s, 'num_outputs': [1] * s['T']})


def aitm(s):
  h = s['bottom'][-1]
  return esmm(s) + (s['T'] - 1) * ((h + 1) * h + 3 * h * h)


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
  for _ in range(20):
    sizes = _random(rng)
    x = jax.ShapeDtypeStruct((1, sizes['D']), jnp.float32)
    model = _model(name, sizes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    assert count_parameters(shapes) == globals()[name](sizes), sizes


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
