"""Whether a new method is complete: the recipes of CONTRIBUTING, step by step.

Files are read as text where importing them would build the models: a forgotten
step must be named, rather than fail elsewhere first.
"""

import ast
import pathlib

import pytest

import lplmtl
from lplmtl import architectures, balancing
from tests import reference, slow_balancing

ROOT = pathlib.Path(__file__).parent.parent

# The tuples of the balancers, and the files that test the values of each kind.
KINDS = {
  'LOSS_WEIGHTINGS': 'tests/test_balancing.py',
  'GRAMIAN_METHODS': 'tests/test_gramian_methods.py',
  'AGGREGATORS': 'tests/test_aggregators.py',
}
# These return no balancer of their own.
HELPERS = {'coordinates', 'normalized'}
# `nash_mtl` is compared with the loop of `fairgrad`; `gradnorm` has a loop in
# its own test.
WITHOUT_SLOW = {'nash_mtl', 'gradnorm'}


def _read(path):
  return (ROOT / path).read_text()


def _methods(room):
  """A test parameter for each public file of a folder of methods."""
  paths = sorted((ROOT / 'lplmtl' / room).glob('[!_]*.py'))
  return [
    pytest.param(path, id=path.stem)
    for path in paths
    if path.stem not in HELPERS
  ]


def _report(steps):
  """Fails once, with a line for each step that is not done."""
  missing = [f'{file}: {what}' for is_done, file, what in steps if not is_done]
  if missing:
    pytest.fail('\n'.join(['forgotten:', *missing]), pytrace=False)


@pytest.mark.parametrize('path', _methods('architectures'))
def test_architecture_is_complete(path):
  name, listed = path.stem, architectures.ARCHITECTURES + architectures.CHAINS
  titles = [
    node.name
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.ClassDef)
    and node.name.lower() == name.replace('_', '')
  ]
  if not titles:
    pytest.fail(
      f'lplmtl/architectures/{path.name}: name the class as the file, without '
      'underscores and in any case, such as StackedMMoE in stacked_mmoe.py',
      pytrace=False,
    )
  title = titles[0]
  table = _read('lplmtl/architectures/README.md')
  _report([
    (hasattr(architectures, title), 'lplmtl/architectures/__init__.py',
     f'import {title}'),
    (any(cls.__name__ == title for cls in listed),
     'lplmtl/architectures/__init__.py',
     f'add {title} to ARCHITECTURES or CHAINS'),
    (hasattr(lplmtl, title), 'lplmtl/__init__.py', f'import {title}'),
    (f'lplmtl.{title}(' in _read('tests/contracts.py'), 'tests/contracts.py',
     f'add a small {title} to architectures() or chains()'),
    (hasattr(reference, name), 'tests/reference.py', f'write the loop {name}()'),
    (hasattr(reference, f'{name}_size'), 'tests/reference.py',
     f'write {name}_size(), its number of parameters'),
    (f'| `{title}` |' in table and f'`{path.name}` |' in table,
     'lplmtl/architectures/README.md', f'add a row for {title}'),
  ])  # fmt: skip


@pytest.mark.parametrize('path', _methods('balancing'))
def test_balancer_is_complete(path):
  names = [
    node.name
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef)
    and getattr(node.returns, 'id', None) in ('Balancer', 'Aggregator')
  ]
  if path.stem not in names:
    pytest.fail(
      f'lplmtl/balancing/{path.name}: write a function {path.stem}() annotated '
      'to return a Balancer or an Aggregator',
      pytrace=False,
    )
  _report([step for name in names for step in _balancer_steps(name)])


def _balancer_steps(name):
  """`(is done, file, what to do)` of each step after the function itself."""
  kinds = [
    kind
    for kind in KINDS
    if any(fn.__name__ == name for fn in getattr(balancing, kind))
  ]
  tests = [KINDS[kind] for kind in kinds or KINDS]
  has_slow = hasattr(slow_balancing, name) or hasattr(reference, name)
  needs_slow = 'GRAMIAN_METHODS' in kinds and name not in WITHOUT_SLOW
  return [
    # Before its import, the name is missing or that of the file.
    (callable(getattr(balancing, name, None)), 'lplmtl/balancing/__init__.py',
     f'import {name}'),
    (kinds, 'lplmtl/balancing/__init__.py', f'add {name} to {" or ".join(KINDS)}'),
    (has_slow or not needs_slow, 'tests/slow_balancing.py',
     f'write a slow {name}()'),
    (any(f'balancing.{name}(' in _read(test) for test in tests),
     ' or '.join(tests), f'test the values of balancing.{name}()'),
    (f'| `{name}` |' in _read('lplmtl/balancing/README.md'),
     'lplmtl/balancing/README.md', f'add a row for {name}'),
  ]  # fmt: skip
