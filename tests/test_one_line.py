"""Mistakes and failures that end any command in one line."""

import dataclasses
import errno
import pathlib
import types

import jax
import numpy as np
import pytest
from absl import flags

from experiments import census, datasets
from experiments import compare as _compare  # noqa: F401, for its flags
from experiments import compress as _compress  # noqa: F401, likewise
from experiments import study as _study  # noqa: F401, likewise
from experiments.comparison import boosting, plan
from experiments.comparison import run as comparison
from experiments.datasets.census import protocol
from experiments.frontier import plan as frontiers
from experiments.frontier import run as frontier
from experiments.launcher import (
  errors,
  jax_setup,
  memory,
  options,
  output,
  parsing,
  run,
  unused,
)
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from experiments.studies import plan as studies
from lplmtl import checkpoint
from lplmtl.storage import pytrees
from lplmtl.training import gradients
from tests import launching

ROOT = pathlib.Path(__file__).parent.parent
FLAG_FILES = sorted((ROOT / 'experiments' / 'flags').glob('*.flags'))
FULL = OSError(errno.ENOSPC, 'No space left on device', 'a/b.json')
DEVICE = jax.errors.JaxRuntimeError(
  'RESOURCE_EXHAUSTED: Out of memory allocating 12720000000 bytes.\nmore'
)


@pytest.mark.parametrize(
  'error, text',
  [
    (InputError('what to do'), 'error: what to do'),
    (FULL, 'error: a/b.json: No space left on device: make room'),
    (pytrees.CheckpointError('damaged'), 'error: damaged'),
    (MemoryError(), 'error: out of memory on cpu (no size)'),
    (DEVICE, 'error: out of memory on cpu (Out of memory allocating 127'),
  ],
)
def test_one_line(error, text):
  with pytest.raises(SystemExit) as stop, errors.one_line():
    raise error
  assert stop.value.code.startswith(text)
  assert '\n' not in stop.value.code


@pytest.mark.parametrize('error', [ValueError('a bug'), KeyError('of ours')])
def test_bugs_keep_their_traceback(error):
  with pytest.raises(type(error)), errors.one_line():
    raise error
  internal = jax.errors.JaxRuntimeError('INTERNAL: a bug')
  with pytest.raises(jax.errors.JaxRuntimeError), memory.guard(Config()):
    raise internal


@pytest.mark.parametrize('error', [DEVICE, MemoryError('Unable to allocate')])
def test_out_of_memory_names_the_sizes(error, tmp_path, monkeypatch):
  """On a device or on the host; no file is left behind."""

  def fit(*args, **kwargs):
    raise error

  monkeypatch.setattr('lplmtl.training.fit', fit)
  config = Config(
    dataset='sample', num_rows=500, batch_size=32, num_seeds=3,
    out_dir=str(tmp_path / 'run'), embed_dim=7,
  )  # fmt: skip
  with pytest.raises(InputError) as found:
    census.run(config)
  for part in ('out of memory on cpu (', '--num_seeds=3', '--batch_size=32',
               '--expert_widths=32,32', '--embed_dim=7', 'lower'):  # fmt: skip
    assert part in str(found.value)
  assert not (tmp_path / 'run').exists()


def test_a_model_larger_than_all_devices(monkeypatch):
  shapes = {'w': jax.ShapeDtypeStruct((1000, 250), np.float32)}
  config = Config(num_seeds=2)

  def devices(limit):
    device = types.SimpleNamespace(memory_stats=lambda: {'bytes_limit': limit})
    return [device, device]

  # 1 MB of parameters; two states of Adam, a gradient and the best parameters,
  # for two seeds, on two devices.
  monkeypatch.setattr(jax, 'local_devices', lambda: devices(8_000_000))
  memory.check(shapes, config)
  monkeypatch.setattr(jax, 'local_devices', lambda: devices(7_999_999))
  with pytest.raises(InputError, match='take at least 0.0 GB'):
    memory.check(shapes, config)


def test_a_compilation_cache_that_is_not_a_folder(tmp_path):
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(InputError, match='--compilation_cache=.*folder'):
    jax_setup.apply(Config(compilation_cache=str(tmp_path / 'file')))


def test_a_scope_error_names_the_flags(capsys):
  with pytest.raises(SystemExit) as end, errors.one_line():
    raise gradients.ScopeError('take another')
  assert end.value.code == (
    'error: take another (--balancer and --balancer_scope)'
  )


@pytest.mark.parametrize(
  'error',
  [
    RuntimeError("Unable to initialize backend 'cuda': none\nmore"),
    AssertionError(),
  ],
)
def test_a_platform_that_is_missing(error, monkeypatch):
  def devices():
    raise error

  monkeypatch.setattr(jax, 'devices', devices)
  monkeypatch.setattr(jax.config, 'update', lambda *_: None)
  with pytest.raises(InputError, match='JAX finds no device') as found:
    jax_setup.apply(Config())
  assert '\n' not in str(found.value)


def test_a_disk_that_fills_up_during_a_comparison(tmp_path, monkeypatch):
  def write(*args):
    raise FULL

  monkeypatch.setattr('experiments.comparison.run._compare', write)
  asked = _plan('--dataset=sample', '--num_seeds=3', '--row=mmoe')
  with pytest.raises(InputError, match='finished fits are kept') as found:
    comparison.compare(asked, datasets.find(asked.base), tmp_path / 'run')
  assert 'No space left on device' in str(found.value)


def test_paths(monkeypatch):
  monkeypatch.setenv('HOME', '/home/of/me')
  assert parsing.path('out', '~/x') == pathlib.Path('/home/of/me/x')
  assert parsing.path('out', 'é/~') == pathlib.Path('é/~')
  with pytest.raises(InputError, match='is not UTF-8'):
    parsing.path('out', 'caf\udce9')
  for name in ('out_dir', 'data_dir', 'compilation_cache'):
    with pytest.raises(InputError, match=rf"{name}: b'caf\\xe9' is not UTF-8"):
      Config(**{name: 'caf\udce9'})
  with pytest.raises(InputError, match='out: no home folder'):
    parsing.path('out', '~nobody_at_all/x')


@pytest.mark.parametrize('value', ['1e30', '-1e18', 'nan', '²'])
def test_parameters_of_trees(value):
  with pytest.raises(InputError, match='LightGBM parameters'):
    boosting.parse(f'num_leaves={value}')


def test_a_model_does_not_decide_where_data_are_read(tmp_path, monkeypatch):
  """With --eval_only the caller says where to read and download."""
  found = {}

  def load(config, console, saved=None):
    found['data_dir'] = config.data_dir
    raise InputError('enough')

  saved = Config(data_dir='/home/of/a/stranger')
  extra = {'config': saved.to_json(), 'data': {}}
  monkeypatch.setattr(checkpoint, 'load', lambda folder: (None, None, None))
  monkeypatch.setattr(checkpoint, 'load_extra', lambda folder: extra)
  known = protocol.DATASET._replace(load=load)
  monkeypatch.setattr(protocol, 'DATASET', known)
  ours = Config(out_dir=str(tmp_path), eval_only=True)
  with pytest.raises(InputError, match="in '/home/of/a/stranger': give --data"):
    census.run(ours)
  assert not found
  with pytest.raises(InputError, match='enough'):
    census.run(dataclasses.replace(ours, data_dir=str(tmp_path)))
  assert found == {'data_dir': str(tmp_path)}
  extra['config'] = dataclasses.replace(saved, data_dir=None).to_json()
  with pytest.raises(InputError, match='enough'):
    census.run(ours)
  assert found == {'data_dir': None}


@pytest.mark.parametrize(
  'fields, part',
  [
    ({'architecture': 'shared_bottom', 'num_experts': 999}, '--architecture=shared_bottom takes no --num_experts'),
    ({'weight_decay': 0.5}, '--optimizer=adam takes no --weight_decay'),
    ({'balancer': 'mgda', 'loss_weights': (1.0, 2.0)}, '--balancer=mgda takes no --loss_weights'),
    ({'cross_rank': 3}, '--num_crosses=0 takes no --cross_rank'),
  ],
)  # fmt: skip
def test_settings_without_effect_are_refused(fields, part):
  """From Python, a setting counts as given if it is not the default."""
  with pytest.raises(InputError, match=part):
    census.run(Config(**fields))


def _parse(*arguments):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  flags.FLAGS(['compare', *arguments])


def _plan(*arguments):
  _parse(*arguments)
  return plan.from_flags(flags.FLAGS)


def _check(*arguments):
  asked = _plan(*arguments)
  comparison.check(asked, datasets.find(asked.base))


def test_settings_without_effect_on_any_row_are_refused():
  """A common setting must matter to one row, a row's own to that row."""
  rows = ('--num_seeds=3', '--row=mmoe', '--row=shared_bottom')
  _check(*rows, '--num_experts=4', '--setting=bottom_widths=8')
  for more, complaint in (
    ('--setting=num_top=1', 'takes no --num_top .nor does any other row'),
    ('--weight_decay=0', '--optimizer=adam takes no --weight_decay .nor'),
    ('--row=mmoe top=shared', '--row=mmoe top=shared: --architecture=mmoe'),
  ):
    with pytest.raises(InputError, match=complaint):
      _check(*rows, more)


@pytest.mark.parametrize('path', FLAG_FILES, ids=lambda p: p.name)
def test_every_setting_of_the_flag_files_has_an_effect(path, monkeypatch):
  for name in ('check', 'package'):  # LightGBM may not be installed
    monkeypatch.setattr(boosting, name, lambda *_: None)
  if path.name.startswith('compress'):
    _parse(f'--flagfile={path}')
    asked = frontiers.from_flags(flags.FLAGS)
    frontier.check(asked, datasets.find(asked.dense.base))
    return
  if path.name.startswith('compare'):
    _check(f'--flagfile={path}')
    return
  if path.name.startswith('study'):
    _parse(f'--flagfile={path}')
    comparison.refuse_unused(studies.from_flags(flags.FLAGS).compared, 'row')
    return
  with pytest.raises(InputError, match='nothing to compare'):
    _plan(f'--flagfile={path}')
  config = options.from_flags(flags.FLAGS)
  unused.refuse([config], options.given(flags.FLAGS))


def test_a_lost_table_is_a_failure(monkeypatch, capsys):
  """--eval_only writes no files, so its output must not be lost."""
  monkeypatch.setattr(run, 'execute', lambda *_, **__: None)
  monkeypatch.setattr(jax_setup, 'apply', lambda config: None)
  stream = output.safe(None)
  monkeypatch.setattr('sys.stdout', stream)
  stream.flush = lambda: None
  assert launching.launch(census.main, '--eval_only') == 0
  stream.is_lost = True
  assert launching.launch(census.main, '--eval_only') == 1
  assert 'could not be written' in capsys.readouterr().err
