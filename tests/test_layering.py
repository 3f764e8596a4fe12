"""Which modules may import which, what an import costs, and lengths."""

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import lplmtl
from lplmtl import _moved

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted((ROOT / 'lplmtl').rglob('*.py'))

# Each part of the library, and the parts it may import. A folder is one part,
# unless its files have rows of their own. Everything may import `FREE`.
FREE = {'types', '_checks', '_alike'}
ALLOWED = {
  'types': set(),
  '_checks': set(),
  '_alike': set(),
  '_intervals': set(),
  '_delong': {'_intervals'},
  '_bootstrap': {'_delong', '_intervals'},
  '_moved': set(),
  '__main__': set(),
  'prng': set(),
  'sparse': set(),
  'loggers': set(),
  'losses': set(),
  'metrics': {'losses', 'ordinal'},
  'ordinal': set(),
  'statistics': {'_bootstrap', '_delong', '_intervals'},
  '_knots': set(),
  '_threads': set(),
  'columns': set(),
  'hashing': set(),
  '_tables_checks': {'columns', 'hashing'},
  'vocabulary': {'_tables_checks', 'columns', 'hashing'},
  '_quantiles': set(),
  'numeric': {'_knots', '_tables_checks', 'columns', '_quantiles'},
  'dates': {'_tables_checks', 'columns'},
  '_tables_data': {'_tables_checks', 'dates', 'hashing', 'numeric'},
  '_tables_encode': {'_threads', 'columns', 'numeric'},
  '_tables_fit': {
    '_tables_checks',
    '_threads',
    'columns',
    'dates',
    'numeric',
    'vocabulary',
  },
  '_tables_sizes': {'dates', 'numeric'},
  'tables': {
    '_tables_checks',
    '_tables_data',
    '_tables_encode',
    '_tables_fit',
    '_tables_sizes',
    'columns',
    'dates',
    'numeric',
    '_quantiles',
    'vocabulary',
  },
  'tasks': {'losses', 'metrics'},
  'layers': {'prng'},
  'architectures': {'layers'},
  'balancing': set(),
  'compression': {
    'columns',
    'dates',
    'losses',
    'numeric',
    'ordinal',
    'tables',
  },
  # Compression works on parameters, tables and any model. Those of its files
  # that return a model of another architecture have rows of their own:
  # `student` makes a SharedBottom, `top_level` an SPLE, the recipe trains.
  'compression.learning': {
    'balancing',
    'compression',
    'tables',
    'training',
  },
  'compression.lessons': {'compression', 'tables', 'training'},
  'compression.recipe': {'compression', 'tables'},
  'compression.student': {'architectures', 'compression', 'layers', 'tables'},
  'compression.top_level': {'architectures', 'compression'},
  'export': {
    'columns',
    'compression',
    'losses',
    'numeric',
    'ordinal',
    'storage.files',
    'tables',
    'vocabulary',
  },
  'inspection': {'training.merged'},
  'data': {'tasks'},
  'data.sharded': {'training.agreement'},
  'data.leaves': set(),
  'data.arrow_columns': {'columns'},
  'data.arrow_files': {'columns', 'data.arrow_columns', 'storage.files'},
  'data.arrow_source': {
    'columns',
    'data.arrow_files',
    'data.encoded',
    'data.sharded',
    'training.arrays',
  },
  'data.sketch': set(),
  'data.fitted_columns': {
    '_quantiles',
    '_tables_fit',
    'columns',
    'data.sketch',
    'dates',
    'numeric',
    'vocabulary',
  },
  'data.fitting': {
    '_tables_checks',
    '_tables_fit',
    'columns',
    'data.fitted_columns',
    'dates',
    'numeric',
    'tables',
    'vocabulary',
  },
  'data.encoded': {'data.leaves', 'storage.files'},
  'data.dealing': {'data.encoded', 'data.leaves', 'storage.files'},
  'data.writing': {
    'data.dealing',
    'data.sharded',
    'storage.folders',
    'training.arrays',
    'training.values',
  },
  'training.finite': set(),
  'training.frozen': {'training.optimizers'},
  'training.gradients': {
    'balancing',
    'losses',
    'training.arrays',
    'training.checks',
  },
  'training.returned': set(),
  'training.rows': {'layers', 'sparse', 'training.standing'},
  'training.rowwise': {'training.optimizers', 'training.rows'},
  'training.lazy': {'sparse', 'training.rows', 'training.rowwise'},
  'training.standing': {'layers'},
  'training.sharding': {
    'layers',
    'sparse',
    'training.hosts',
    'training.parallel',
    'training.rows',
    'training.standing',
  },
  'training.microbatch': {'prng'},
  'training.scopes': {'training.gradients'},
  'training.balanced': {
    'balancing',
    'losses',
    'training.gradients',
    'training.microbatch',
    'training.returned',
    'training.scopes',
  },
  'training.evaluation': {'losses', 'training.merged'},
  'training.merged': {'training.operations'},
  'training.operations': set(),
  'training.packed': {'training.merged'},
  'training.batches': {'training.packed'},
  'training.steps': {
    'layers',
    'prng',
    'sparse',
    'training.balanced',
    'training.batches',
    'training.finite',
    'training.frozen',
    'training.lazy',
    'training.merged',
    'training.microbatch',
    'training.optimizers',
    'training.packed',
  },
  'training.optimizers': set(),
  'training.roll_call': set(),
  'training.hosts': {'training.roll_call'},
  'training.agreement': {'training.hosts'},
  'training.parallel': {'training.hosts'},
  'training.own_rows': {'training.hosts', 'training.parallel'},
  'training.arrays': {'training.values'},
  'training.values': {'losses'},
  'training.checks': set(),
  'training.compiled': {'training.agreement', 'training.hosts'},
  'training.warm_start': set(),
  'training.scanning': {
    'training.agreement',
    'training.arrays',
    'training.checks',
    'training.compiled',
    'training.values',
  },
  'training.programs': {
    'training.checks',
    'training.evaluation',
    'training.microbatch',
    'training.parallel',
    'training.scanning',
    'training.sharding',
    'training.steps',
  },
  'training.progress': {'training.steps'},
  'training.shuffle': set(),
  'training.feed': {
    'training.agreement',
    'training.arrays',
    'training.hosts',
    'training.own_rows',
    'training.parallel',
    'training.shuffle',
  },
  'training.job': {
    'training.scanning',
    'training.feed',
    'training.programs',
    'training.progress',
    'training.steps',
  },
  'training.nonfinite': {
    'prng',
    'training.feed',
    'training.gradients',
    'training.hosts',
    'training.job',
    'training.programs',
    'training.progress',
    'training.steps',
  },
  'training.loop': {
    'training.checks',
    'training.compiled',
    'training.hosts',
    'training.job',
    'training.keepers',
    'training.nonfinite',
    'training.optimizers',
    'training.parallel',
    'training.programs',
    'training.progress',
    'training.scanning',
    'training.steps',
    'training.warm_start',
  },
  'training.making': {
    'training.agreement',
    'training.arrays',
    'training.checks',
    'training.feed',
    'training.hosts',
    'training.job',
    'training.parallel',
    'training.programs',
    'training.scanning',
    'training.values',
  },
  'training.scoring': {
    'training.checks',
    'training.parallel',
    'training.programs',
    'training.scanning',
  },
  'training.keepers': {
    'training.agreement',
    'training.hosts',
    'training.job',
    'training.parallel',
    'training.progress',
  },
  'training.fit': {
    'training.checks',
    'training.hosts',
    'training.job',
    'training.keepers',
    'training.loop',
    'training.making',
    'training.parallel',
    'training.programs',
    'training.progress',
    'training.steps',
  },
  'training.repeated': {
    'training.checks',
    'training.fit',
    'training.job',
    'training.making',
    'training.programs',
  },
  'storage.errors': set(),
  'storage.files': set(),
  'storage.folders': {'storage.files'},
  'storage.saves': {'storage.folders'},
  'storage.quiet': set(),
  'storage.pytrees': {
    'storage.errors',
    'storage.files',
    'storage.folders',
    'storage.quiet',
  },
  'blueprint': set(),
  'checkpoint': {'blueprint', 'storage', 'tables'},
  '_progress_data': {'storage', 'training'},
  '_keeper_checks': {'_progress_data'},
  'resume': {'_keeper_checks', '_progress_data', 'storage', 'training'},
  'tabular.hints': set(),
  'tabular.field_checks': {'tabular.hints'},
  'tabular.schema': {'_tables_checks', 'tabular.field_checks'},
  'tabular.facts': {'columns'},
  'tabular.formats': {'tabular.facts'},
  'tabular.kinds': {
    'tabular.facts',
    'tabular.formats',
    'tabular.hints',
    'tabular.schema',
    'vocabulary',
  },
  'tabular.checks': {
    '_tables_checks',
    'columns',
    'tabular.facts',
    'tabular.hints',
    'tabular.kinds',
    'tabular.schema',
    'vocabulary',
  },
  'tabular.leaks': {'columns', 'numeric', 'tabular.facts', 'tabular.schema'},
  'tabular.class_values': {
    'columns',
    'tabular.checks',
    'tabular.facts',
    'tabular.hints',
    'tabular.kinds',
    'tabular.schema',
    'vocabulary',
  },
  'tabular.labels': {
    'columns',
    'tabular.checks',
    'tabular.class_values',
    'tabular.facts',
    'tabular.hints',
    'tabular.kinds',
    'tabular.leaks',
    'tabular.schema',
  },
  'tabular.inference': {
    'columns',
    'tabular.checks',
    'tabular.facts',
    'tabular.kinds',
    'tabular.labels',
    'tabular.schema',
  },
  'tabular.description': {
    'tabular.checks',
    'tabular.facts',
    'tabular.hints',
    'tabular.schema',
  },
  'tabular.splits': {
    'columns',
    'dates',
    'numeric',
    'tabular.checks',
    'tabular.facts',
    'tabular.hints',
    'tabular.kinds',
    'tabular.schema',
  },
  'tabular.targets': {
    'columns',
    'numeric',
    'ordinal',
    'tabular.checks',
    'tabular.class_values',
    'tabular.facts',
    'tabular.hints',
    'tabular.schema',
    'tasks',
  },
  'tabular.settings': {'architectures', 'balancing'},
  'tabular.build': {'layers', 'tables', 'tabular.settings'},
  'tabular.scores': {'tabular.schema', 'tabular.targets'},
  'tabular.predictor': {
    'blueprint',
    'checkpoint',
    'inspection',
    'storage.errors',
    'storage.folders',
    'tables',
    'tabular.checks',
    'tabular.schema',
    'tabular.scores',
    'tabular.targets',
    'training.evaluation',
    'training.progress',
  },
  'tabular.preparation': {
    'columns',
    'data',
    'dates',
    'tables',
    'tabular.checks',
    'tabular.facts',
    'tabular.labels',
    'tabular.predictor',
    'tabular.schema',
    'tabular.settings',
    'tabular.splits',
    'tabular.targets',
  },
  'tabular.training': {
    'tabular.build',
    'tabular.predictor',
    'tabular.preparation',
    'tabular.schema',
    'tabular.settings',
    'training',
  },
  'tabular.tuning': {
    'tabular.build',
    'tabular.preparation',
    'tabular.schema',
    'tabular.settings',
    'tabular.training',
    'training',
  },
  'tabular.importance': {
    '_tables_encode',
    'tables',
    'tabular.predictor',
    'tabular.scores',
    'tabular.targets',
  },
  'tabular.arrays': {
    'columns',
    'tabular.checks',
    'tabular.inference',
    'tabular.schema',
  },
  'tabular.scorer': {'tasks', 'tabular.hints'},
  'tabular.progress': set(),
  'tabular.parameters': {
    'tabular.hints',
    'tabular.inference',
    'tabular.settings',
  },
  'tabular.estimator': {
    'tabular.arrays',
    'tabular.hints',
    'tabular.inference',
    'tabular.labels',
    'tabular.parameters',
    'tabular.predictor',
    'tabular.preparation',
    'tabular.schema',
    'tabular.settings',
    'tabular.targets',
    'tabular.training',
    'tabular.tuning',
  },
}
FORBIDDEN = {
  'balancing': {'flax'},
  'compression': {'flax'},
  'export': {'flax'},
  '_knots': {'flax', 'jax', 'optax'},
  '_tables_checks': {'flax', 'jax', 'optax'},
  '_tables_data': {'flax', 'jax', 'optax'},
  '_tables_encode': {'flax', 'jax', 'optax'},
  '_tables_fit': {'flax', 'jax', 'optax'},
  '_tables_sizes': {'flax', 'jax', 'optax'},
  '_threads': {'flax', 'jax', 'numpy', 'optax'},
  'columns': {'flax', 'jax', 'optax'},
  'dates': {'flax', 'jax', 'optax'},
  'hashing': {'flax', 'jax', 'optax'},
  'numeric': {'flax', 'jax', 'optax'},
  '_quantiles': {'flax', 'jax', 'optax'},
  'tables': {'flax', 'jax', 'optax'},
  'vocabulary': {'flax', 'jax', 'optax'},
  'storage.files': {'flax', 'jax', 'numpy', 'optax'},
  'storage.folders': {'flax', 'jax', 'numpy', 'optax'},
  'storage.saves': {'flax', 'jax', 'numpy', 'optax'},
  'loggers': {'flax', 'jax', 'optax'},
  'ordinal': {'flax', 'jax', 'optax'},
  'statistics': {'flax', 'jax', 'optax'},
  '_delong': {'flax', 'jax', 'optax'},
  '_intervals': {'flax', 'jax', 'optax'},
  '_bootstrap': {'flax', 'jax', 'optax'},
  'tabular.checks': {'flax', 'jax', 'optax'},
  'tabular.class_values': {'flax', 'jax', 'optax'},
  'tabular.description': {'flax', 'jax', 'optax'},
  'tabular.facts': {'flax', 'jax', 'optax'},
  'tabular.field_checks': {'flax', 'jax', 'optax'},
  'tabular.formats': {'flax', 'jax', 'optax'},
  'tabular.inference': {'flax', 'jax', 'optax'},
  'tabular.kinds': {'flax', 'jax', 'optax'},
  'tabular.labels': {'flax', 'jax', 'optax'},
  'tabular.leaks': {'flax', 'jax', 'optax'},
  'tabular.schema': {'flax', 'jax', 'optax'},
  'tabular.splits': {'flax', 'jax', 'optax'},
  'tabular.targets': {'flax', 'jax', 'optax'},
}
# The folders of `experiments`, and those that each may import. Outside
# `datasets`, only its base module and its look-up by name may be imported.
ROOMS = {
  'launcher': {'datasets'},
  'datasets': {'launcher'},
  'comparison': {'launcher', 'datasets'},
  'benchmark': {'launcher', 'datasets', 'comparison', 'exporting'},
  'frontier': {'launcher', 'datasets', 'comparison'},
  'reporting': {'launcher', 'comparison'},
  'exporting': {'launcher'},
  'studies': {'launcher', 'datasets', 'comparison'},
  'serving': {'launcher'},
}
EXPERIMENTS = sorted((ROOT / 'experiments').rglob('*.py'))
COMMANDS = sorted(
  path.stem
  for path in (ROOT / 'experiments').glob('*.py')
  if not path.name.startswith('_')
  and path.stem != 'options'  # the old name of launcher.options
)
IMPORT = (ast.Import, ast.ImportFrom)

# Files over 350 lines, functions over 80 lines or eight parameters. The options
# of `fit_each` are those of `fit`.
LONG = {
  'lplmtl/training/fit.py: fit',
  'lplmtl/training/repeated.py: fit_each',
}


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _part(name):
  """Returns the row of a module, such as `layers` or `training.steps`."""
  room = name.split('.')[0]
  module = '.'.join(name.split('.')[:2])
  return module if module in ALLOWED else room


def _name(path):
  parts = path.relative_to(ROOT / 'lplmtl').with_suffix('').parts
  return '.'.join(part for part in parts if part != '__init__')


@pytest.mark.parametrize(
  'path', SOURCES, ids=lambda p: str(p.relative_to(ROOT))
)
def test_arrows_point_one_way(path):
  part = _part(_name(path))
  room = part.split('.')[0]
  is_index = path.name == '__init__.py'
  if not part:
    return
  for name in _imports(path):
    top, _, rest = name.partition('.')
    assert top not in FORBIDDEN.get(part, set()), name
    assert top not in ('experiments', 'tests', 'absl', 'pandas'), name
    if top == 'orbax':
      assert part == 'storage.pytrees'
    if top == 'lplmtl':
      used = _part(rest)
      if is_index:
        assert used.split('.')[0] == room, f'{path.name}: {name}'
        continue
      allowed = ALLOWED[part] | FREE | {part}
      assert {used, used.split('.')[0]} & allowed, f'{path.name}: {name}'


def test_every_part_has_its_row():
  indices = {'', *(part.split('.')[0] for part in ALLOWED)}
  parts = {_part(_name(path)) for path in SOURCES}
  assert parts - indices == set(ALLOWED) - indices
  assert indices - {''} <= {part.split('.')[0] for part in parts}


@pytest.mark.parametrize(
  'path', SOURCES, ids=lambda p: str(p.relative_to(ROOT))
)
def test_library_is_silent_and_portable(path):
  """No printing, flags, environment or global options; no deprecated API."""
  text = path.read_text()
  for word in (
    r'\bprint\(', r'os\.environ', r'jax\.config\.update', r'jnp\.empty',
    r'\bpmap\b', r'with mesh', r'jax\._src', r'jax\.core', r'\bpickle\b',
  ):  # fmt: skip
    assert not re.search(word, text), word


@pytest.mark.parametrize(
  'path', EXPERIMENTS, ids=lambda p: str(p.relative_to(ROOT))
)
def test_arrows_between_experiments_point_one_way(path):
  """No file imports a command, and no folder but datasets knows a data set."""
  parts = path.relative_to(ROOT / 'experiments').parts
  room = parts[0] if len(parts) > 1 else 'a command'
  for name in _imports(path):
    if not name.startswith('experiments.'):
      continue
    used = name.split('.')[1]
    assert used not in COMMANDS, f'{path.name}: {name}'
    if room != 'a command':
      assert used in ROOMS[room] | {room}, f'{path.name}: {name}'
    if room != 'datasets':
      assert not name.startswith('experiments.datasets.census'), path
    if room not in ('datasets', 'a command'):
      assert not name.startswith('experiments.datasets.tables'), path


def test_imports_inside_functions_are_few_and_have_reasons():
  """The reason is a comment on the line, above it, or above its neighbours."""
  deferred = {}
  for path in EXPERIMENTS:
    text = path.read_text()
    lines = ['', *text.splitlines()]
    functions = [
      node
      for node in ast.walk(ast.parse(text))
      if isinstance(node, ast.FunctionDef)
    ]
    for node in (n for function in functions for n in ast.walk(function)):
      if isinstance(node, IMPORT):
        line, above = lines[node.lineno], lines[node.lineno - 1].lstrip()
        has_reason = '#' in line or above.startswith(('#', 'from ', 'import '))
        deferred[f'{path.relative_to(ROOT)}:{node.lineno}'] = has_reason
  assert all(deferred.values()), deferred
  assert len(deferred) <= 29, deferred  # each command has one or two


def test_files_and_functions_are_short():
  """Functions count their signature and docstring."""
  long = {}
  for path in (*SOURCES, *EXPERIMENTS):
    text, name = path.read_text(), str(path.relative_to(ROOT))
    if len(text.splitlines()) > 350:
      long[name] = 'lines'
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if node.end_lineno - node.lineno + 1 > 80:
          long[f'{name}: {node.name}'] = 'lines'
        arguments = node.args
        every = (
          *arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs,
          arguments.vararg, arguments.kwarg,
        )  # fmt: skip
        named = [a for a in every if a and a.arg not in ('self', 'cls')]
        if len(named) > 8:
          long[f'{name}: {node.name}'] = 'parameters'
  assert set(long) <= LONG, {k: v for k, v in long.items() if k not in LONG}


def _loaded_by(statement):
  code = f'{statement}; import sys; print(*sys.modules)'
  process = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert process.returncode == 0, process.stderr
  return {name.split('.')[0] for name in process.stdout.split()}


@pytest.mark.parametrize('name', sorted(_moved.MOVED))
def test_modules_that_moved_are_handed_on(name):
  with pytest.warns(DeprecationWarning, match=rf'lplmtl\.{_moved.MOVED[name]}'):
    module = getattr(lplmtl, name)
  assert module.__name__ == f'lplmtl.{_moved.MOVED[name]}'


def test_the_front_door_leads_somewhere():
  """The docstring of the package names what exists."""
  for name in re.findall(r'`([\w.]+)`', lplmtl.__doc__):
    is_module = name.startswith('lplmtl.')
    assert importlib.import_module(name) if is_module else hasattr(lplmtl, name)


def test_type_checkers_see_what_is_imported_on_first_use():
  tree = ast.parse((ROOT / 'lplmtl/__init__.py').read_text())
  (block, *_) = (node for node in tree.body if isinstance(node, ast.If))
  seen = {
    alias.asname: f'{node.module}.{alias.name}'
    for node in block.body
    for alias in node.names
  }
  assert set(seen) == set(lplmtl.__all__) <= set(dir(lplmtl))
  modules = {path.stem for path in (ROOT / 'lplmtl').glob('[!_]*.py')}
  modules |= {
    path.parent.name for path in (ROOT / 'lplmtl').glob('*/__init__.py')
  }
  assert modules <= set(seen)
  for name, origin in seen.items():
    value = getattr(lplmtl, name)
    module, _, attribute = origin.rpartition('.')
    assert value is getattr(importlib.import_module(module), attribute)
  with pytest.raises(AttributeError, match="'lplmtl' has no attribute 'no'"):
    lplmtl.no  # noqa: B018


def test_encoding_needs_numpy_only():
  """A server that encodes rows need not hold JAX."""
  loaded = _loaded_by('import lplmtl.tables')
  assert not loaded & {'jax', 'flax', 'optax', 'scipy', 'pandas'}


def test_importing_the_library_pulls_in_nothing_heavy():
  loaded = _loaded_by('import lplmtl')
  assert not loaded & {
    'pandas',
    'matplotlib',
    'orbax',
    'sklearn',
    'experiments',
  }


@pytest.mark.parametrize('command', COMMANDS)
def test_help_is_light(command):
  """Defining flags imports no JAX, NumPy or pandas, so that --help is fast."""
  loaded = _loaded_by(f'import experiments.{command}')
  assert not loaded & {'jax', 'flax', 'pandas', 'numpy', 'rich'}


def test_public_names_are_documented():
  """Modules, classes, methods, and functions that are not nested."""
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


def test_the_error_of_storage_needs_no_orbax():
  loaded = _loaded_by('from lplmtl.storage import CheckpointError, folders')
  assert not loaded & {'orbax', 'tensorstore'}
