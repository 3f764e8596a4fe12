"""What may lean on what, what importing costs, and small rules of the tree."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted((ROOT / 'lplmtl').rglob('*.py'))

# Each part of the library, and the parts it may import. `types` is free to all.
ALLOWED = {
  'types': set(),
  'losses': set(),
  'metrics': set(),
  'statistics': set(),
  'columns': set(),
  'tables': {'columns'},
  'tasks': {'losses', 'metrics'},
  'dropout': set(),
  'modules': set(),
  'experts': {'dropout', 'modules'},
  'encoder': {'modules'},
  'towers': {'modules'},
  'mixture': {'experts'},
  'extraction': {'mixture'},
  'architectures': {'experts', 'extraction', 'mixture', 'modules', 'towers'},
  'balancing': set(),
  'compression': set(),
  'gates': set(),
  'data': set(),
  'frozen': {'optimizers'},
  'gradients': {'arrays', 'checks', 'losses'},
  'returned': set(),
  'parts': {'dropout'},
  'scopes': {'gradients'},
  'balanced': {'gradients', 'losses', 'parts', 'returned', 'scopes'},
  'steps': {
    'balanced',
    'dropout',
    'frozen',
    'losses',
    'modules',
    'optimizers',
    'parts',
    'returned',
  },
  'optimizers': set(),
  'parallel': set(),
  'arrays': set(),
  'checks': set(),
  'programs': {'parallel', 'parts', 'steps'},
  'progress': {'steps'},
  'nonfinite': {'dropout', 'gradients', 'progress', 'steps'},
  'training': {
    'arrays',
    'checks',
    'nonfinite',
    'optimizers',
    'parallel',
    'programs',
    'progress',
    'steps',
  },
  'files': set(),
  'folders': {'files'},
  'saves': {'folders'},
  'quiet': set(),
  'storage': {'files', 'folders', 'quiet'},
  'blueprint': set(),
  'checkpoint': {'blueprint', 'folders', 'storage', 'tables'},
  'resume': {'folders', 'progress', 'saves', 'storage'},
}
FORBIDDEN = {
  'balancing': {'flax'},
  'compression': {'flax'},
  'files': {'flax', 'jax', 'numpy', 'optax'},
  'columns': {'flax', 'jax', 'optax'},
  'folders': {'flax', 'jax', 'numpy', 'optax'},
  'saves': {'flax', 'jax', 'numpy', 'optax'},
  'tables': {'flax', 'jax', 'optax'},
  'statistics': {'flax', 'jax', 'optax'},
}


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _part(path):
  return path.relative_to(ROOT / 'lplmtl').parts[0].removesuffix('.py')


@pytest.mark.parametrize(
  'path', SOURCES, ids=lambda p: str(p.relative_to(ROOT))
)
def test_arrows_point_one_way(path):
  part = _part(path)
  if part == '__init__':
    return
  for name in _imports(path):
    top, _, rest = name.partition('.')
    assert top not in FORBIDDEN.get(part, set()), name
    assert top not in ('experiments', 'tests', 'absl', 'pandas'), name
    if top == 'orbax':
      assert part == 'storage'
    if top == 'lplmtl':
      used = rest.split('.')[0]
      assert used in ALLOWED[part] | {part, 'types'}, f'{path.name}: {name}'


def test_every_part_has_its_row():
  assert {_part(path) for path in SOURCES} == {*ALLOWED, '__init__'}


@pytest.mark.parametrize(
  'path', SOURCES, ids=lambda p: str(p.relative_to(ROOT))
)
def test_library_is_silent_and_portable(path):
  """No printing, flags, environment, global options; no outgoing API."""
  text = path.read_text()
  for word in (
    r'\bprint\(', r'os\.environ', r'jax\.config', r'jnp\.empty', r'\bpmap\b',
    r'with mesh', r'jax\._src', r'jax\.core', r'\bpickle\b',
  ):  # fmt: skip
    assert not re.search(word, text), word


def test_launchers_do_not_import_each_other():
  for path in (ROOT / 'experiments').glob('*.py'):
    is_launcher = "__name__ == '__main__'" in path.read_text()
    if is_launcher:
      continue
    assert 'experiments.census' not in set(_imports(path)), path


def test_files_are_short():
  for folder in ('lplmtl', 'experiments'):
    for path in (ROOT / folder).rglob('*.py'):
      assert len(path.read_text().splitlines()) <= 500, path


def _loaded_by(statement):
  code = f'{statement}; import sys; print(*sys.modules)'
  found = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert found.returncode == 0, found.stderr
  return {name.split('.')[0] for name in found.stdout.split()}


def test_importing_the_library_pulls_in_nothing_heavy():
  loaded = _loaded_by('import lplmtl')
  assert not loaded & {
    'pandas',
    'matplotlib',
    'orbax',
    'sklearn',
    'experiments',
  }


def test_help_is_light():
  """Flags are defined without JAX, NumPy or pandas: --help answers at once."""
  loaded = _loaded_by('import experiments.census')
  assert not loaded & {'jax', 'flax', 'pandas', 'numpy', 'rich'}


def test_public_names_are_documented():
  """Modules, classes, their methods, and functions that are not nested."""
  for path in SOURCES:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body, path.name
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in (*tree.body, *(n for cls in classes for n in cls.body)):
      if isinstance(node, ast.FunctionDef | ast.ClassDef):
        is_private = node.name.startswith('_')
        assert is_private or ast.get_docstring(node), (
          f'{path.name}: {node.name}'
        )
