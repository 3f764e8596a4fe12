"""Settings: defaults, bounds, flags, and which of them identify a run."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import flags

import experiments
from experiments.launcher import fields, options, parsing, sections, unused
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl.tabular import schema

ROOT = pathlib.Path(__file__).parent.parent
INTEGERS = [
  f.name for f in dataclasses.fields(Config) if type(f.default) is int
]
REALS = [f.name for f in dataclasses.fields(Config) if f.type is float]


def _parse(*arguments):
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  options.define_flags()
  flags.FLAGS(['census', *arguments])
  return flags.FLAGS


def test_flags_and_config_have_the_same_defaults():
  assert options.from_flags(_parse()) == Config()
  assert not options.given(flags.FLAGS)
  parsed = _parse('--epochs=12', '--expert_widths=9x8,7', '--loss_weights=1,.5')
  assert options.given(parsed) == {'epochs', 'expert_widths', 'loss_weights'}
  expected = Config(expert_widths=((9, 8), (7,)), loss_weights=(1.0, 0.5))
  assert options.from_flags(parsed) == expected
  assert options.changed(expected) == {'expert_widths', 'loss_weights'}


def test_json_round_trip():
  config = Config(expert_widths=((128, 64), (64,)), tasks=('marital',))
  assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
  assert Config.from_json({}) == Config()
  for data, complaint in (
    (None, 'expected a configuration'),
    ({'of_a_newer_release': 1}, "no setting 'of_a_newer_release'"),
  ):
    with pytest.raises(InputError, match=complaint):
      Config.from_json(data)


def test_all_but_the_last_section_identify_a_run():
  """A change here would make all unfinished runs unrecognisable."""
  names = {f.name for f in dataclasses.fields(Config)}
  where_and_how = {
    'data_dir', 'skip_nonfinite', 'cpu_devices', 'compilation_cache', 'out_dir',
    'resume', 'overwrite', 'save_every_steps', 'save_every_seconds',
    'num_checkpoints', 'eval_only', 'log_to',
  }  # fmt: skip
  of_tables = {f.name for f in dataclasses.fields(sections.Table)}
  assert Config().identity().keys() == names - where_and_how - of_tables
  table = Config(data='a.csv', test_data='b.csv', schema='c', index_column='d')
  places = {'data', 'test_data', 'schema', 'index_column', 'stream'}
  assert table.identity().keys() == names - where_and_how - places
  assert table.identity() == Config(data='elsewhere.csv').identity()
  assert {f.name for f in dataclasses.fields(sections.Run)} == where_and_how
  old = Config(expert_widths=((8, 4), (4,)), seed=3)
  assert old.identity() == json.loads(json.dumps(old.identity()))
  assert old.identity()['expert_widths'] == [[8, 4], [4]]
  moved = dataclasses.replace(old, out_dir='b', data_dir='c', cpu_devices=1)
  assert moved.identity() == old.identity()
  assert dataclasses.replace(old, num_seeds=2).identity() != old.identity()


@pytest.mark.parametrize('name', INTEGERS)
def test_whole_numbers_have_bounds(name):
  """Without bounds, a number might overflow, hang or abort."""
  for value in (-1, 10**20, 1.5, '1', True, None):
    with pytest.raises(InputError, match=f'{name} must be a whole number'):
      Config(**{name: value})


@pytest.mark.parametrize(('name', 'least'), schema.SIZES.items())
def test_sizes_of_vocabularies_have_the_bounds_of_the_library(name, least):
  assert getattr(Config(**{name: least}), name) == least
  with pytest.raises(InputError, match=f'a whole number from {least} to'):
    Config(**{name: least - 1})


@pytest.mark.parametrize('name', REALS)
def test_real_numbers_have_bounds(name):
  for value in (-0.1, 1e10, np.nan, np.inf, '1', False, None, (1.0,)):
    with pytest.raises(InputError, match=f'{name} must be a finite number'):
      Config(**{name: value})


def test_traced_numbers_pass():
  """Comparisons trace the numbers in which their settings differ."""
  rate = jax.jit(lambda rate: Config(dropout=rate).dropout)(np.float32(0.1))
  assert rate == np.float32(0.1)


@pytest.mark.parametrize(
  'changes, expected',
  [
    ({'top': 'nonsense'}, 'one of concat, identity, shared'),
    ({'dataset': None}, 'one of census, census66k, sample'),
    ({'tasks': 'income'}, 'tuple of names'),
    ({'tasks': (1,)}, 'tuple of names'),
    ({'architecture': 3}, 'must be text'),
    ({'resume': 'no'}, 'True or False'),
    ({'data_dir': [1]}, 'must be a path'),
    ({'loss_weights': (1.0, np.nan)}, 'finite numbers'),
    ({'loss_weights': 1.0}, 'finite numbers'),
    ({'bottom_widths': (8, 0)}, 'layer widths'),
    ({'bottom_widths': 8}, 'layer widths'),
    ({'expert_widths': ()}, 'tuple of widths'),
    ({'expert_widths': (8, 8)}, 'layer widths'),
    ({'tower_widths': (10**8,)}, 'at most 10,000,000 units'),
    ({'dropout': 0.995}, 'from 0 to 0.99'),
    ({'num_bins': 1}, '0 or at least 2'),
  ],
)
def test_other_values_are_refused(changes, expected):
  with pytest.raises(InputError, match=expected):
    Config(**changes)


def test_lists_are_kept_as_tuples():
  config = Config(tasks=['income'], expert_widths=[[8], [4]], ranks=[1, 2, 3])
  assert config.tasks == ('income',)
  assert config.expert_widths == ((8,), (4,)) and config.ranks == (1, 2, 3)


@pytest.mark.parametrize('name', ['options', 'errors'])
def test_modules_are_found_under_their_old_names(name):
  with pytest.warns(DeprecationWarning, match=f'launcher.{name}'):
    module = getattr(experiments, name)
  assert module.__name__ == f'experiments.launcher.{name}'


@pytest.mark.parametrize(
  'flag, complaint',
  [
    ('--epochs=two', 'flag --epochs=two: '),
    ('--epochs=-1', 'range'),
    ('--nonsense', "'nonsense'"),
    ('--flagfile=/nowhere', "'/nowhere'"),
  ],
)
def test_flags_that_cannot_be_parsed_end_in_one_line(flag, complaint):
  found = _command(flag)
  assert found.returncode == 1 and not found.stdout
  (line,) = found.stderr.splitlines()
  assert line.startswith('error: ') and complaint in line
  assert line.endswith('(--help lists all flags)')


def test_help_names_section_and_default():
  found = _command('--help')
  assert found.returncode == 0
  for section in (
    sections.Data, sections.Table, sections.Model, sections.Optimisation,
    sections.Run,
  ):  # fmt: skip
    for name in fields.of(section):
      start = found.stdout.index(f'{name}:')
      assert f'{section.__name__}: ' in found.stdout[start : start + 120], name


@pytest.mark.parametrize(
  'flag, complaint',
  [
    ('--top=none', 'value should be one of <concat|identity|shared>'),
    ('--num_experts=0', r'not an integer in the range \[1, 10000\]'),
    ('--no_such_flag=1', 'Unknown command line flag'),
    ('--seed=3000000000', 'seed=3000000000'),
    ('--num_crosses=99999999999999999999', r'in the range \[0, 100\]'),
    ('--cpu_devices=1024', r'in the range \[0, 256\]'),
    ('--dropout=1', r'in the range \[0.0, 0.99\]'),
    ('--dataset=adult', 'one of <census|census66k|sample>'),
    ('--flagfile=nowhere.flags', 'nowhere.flags'),
  ],
)
def test_flags_that_absl_refuses(flag, complaint):
  with pytest.raises((flags.Error, OSError), match=complaint):
    _parse(flag)


@pytest.mark.parametrize('flag', ['--top=none', '--flagfile=nowhere.flags'])
def test_a_wrong_flag_ends_without_a_traceback(flag):
  found = _command(flag)
  assert found.returncode in (1, 2)
  assert found.stderr and 'Traceback' not in found.stderr


@pytest.mark.parametrize(
  'command, folder',
  [('compare', 'runs/comparison'), ('compress', 'runs/frontier')],
)
def test_help_names_the_folder_of_the_command(command, folder):
  text = ' '.join(_command('--help', command=command).stdout.split())
  _, _, after = text.partition('--out_dir: ')
  assert f'Default: {folder}.' in after.partition(' --')[0]


def _command(*arguments, command='census'):
  return subprocess.run(
    [sys.executable, '-m', f'experiments.{command}', *arguments],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip


@pytest.mark.parametrize(
  'text, widths',
  [('64', (64,)), ('128x64', (128, 64)), ('', ())],
)
def test_widths(text, widths):
  assert parsing.parse_widths(text) == widths


@pytest.mark.parametrize('text', ['x', '64x', '0', '-3', '64;32', '1.5'])
def test_bad_widths(text):
  with pytest.raises(InputError, match='expected layer widths such as'):
    parsing.parse_widths(text)
  with pytest.raises(InputError, match='expected'):
    parsing.parse_levels(f'64,{text}')


def test_what_the_parts_take():
  config = Config(
    architecture='dselect_k', optimizer='adamw', balancer='exponential',
    num_crosses=1, dataset='sample',
  )  # fmt: skip
  taken = (
    'expert_widths', 'num_experts', 'num_selected', 'selection_entropy',
    'tower_widths', 'weight_decay', 'loss_weights', 'loss_weight_rates',
    'cross_rank', 'num_rows', 'dropout', 'epochs', 'embed_dim',
  )  # fmt: skip
  unused.refuse([config], taken)
  for name in ('ranks', 'bottom_widths', 'top', 'loss_weight_learning_rate'):
    with pytest.raises(InputError, match=f'takes no --{name}: '):
      unused.refuse([config], (name,))
