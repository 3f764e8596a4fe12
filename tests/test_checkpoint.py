"""Saved models: exact round trip, damage, what may be named in them."""

import dataclasses
import json
import os
import shutil
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lplmtl
from lplmtl import (
  architectures,
  blueprint,
  checkpoint,
  losses,
  metrics,
  tables,
  tasks,
)
from lplmtl.storage import folders, pytrees
from tests import contracts
from tests.golden import write as golden

TABLES = tables.fit(
  {'a': ['x', 'y'] * 2, 'b': ['1', '2', '3', '4']},
  {'n': [1.0, 2.5] * 2},
  num_bins=2,
)


def _save(folder, model=None, **options):
  model = model or contracts.architectures(encoder=contracts.encoder())['ple']
  params = contracts.random_params(model, contracts.features())
  params = jax.tree.map(lambda x: jnp.stack([x, x + 1]), params)
  checkpoint.save(folder, model, params, TABLES, num_seeds=2, **options)
  return model, params


@pytest.mark.parametrize('name', contracts.architectures())
def test_round_trip(name, tmp_path):
  model = contracts.architectures(encoder=contracts.encoder())[name]
  _, params = _save(tmp_path / 'model', model, extra={'note': [1, 'two']})
  loaded, found, encoder_tables = checkpoint.load(tmp_path / 'model')
  assert loaded == model
  assert [t.metric_fns for t in loaded.tasks] == [
    t.metric_fns for t in model.tasks
  ]
  contracts.assert_trees_equal(found, params)
  contracts.assert_same_structure(found, params)
  assert encoder_tables == TABLES
  assert checkpoint.load_extra(tmp_path / 'model') == {'note': [1, 'two']}
  assert [p.name for p in tmp_path.iterdir()] == ['model']
  if name == 'sple_concat':
    _, second, _ = checkpoint.load(tmp_path / 'model', seed=1)
    contracts.assert_trees_equal(second, jax.tree.map(lambda x: x[1], params))
    predictions, _ = loaded.apply({'params': second}, contracts.features())
    assert set(predictions) == set(contracts.NAMES)
    with pytest.raises(
      checkpoint.CheckpointError, match='with 2 seeds; found seed=2'
    ):
      checkpoint.load(tmp_path / 'model', seed=2)


@pytest.mark.parametrize(
  'folder', sorted(golden.FOLDER.glob('format*/')), ids=lambda path: path.name
)
def test_models_of_earlier_releases(folder):
  """Every format is read; nothing of what is in it depends on the release."""
  model, params, encoder = checkpoint.load(folder)
  lookup = blueprint.known_names(())
  assert blueprint.to_data(model, lookup) == blueprint.to_data(
    golden.golden_model(), lookup
  )
  assert encoder == golden.encoder_tables()
  assert checkpoint.load_extra(folder) == golden.EXTRA
  expected = json.loads(folder.with_suffix('.json').read_text())
  found = golden.predictions(model, params, encoder)
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6)
  assert np.shape(expected['rating']) == (golden.NUM_SEEDS, 3, 3)


def test_a_tower_for_each_task(tmp_path):
  towers = tuple(lplmtl.MLP((width,)) for width in (2, 3, 4))
  model = lplmtl.MMoE(contracts.TASKS, tower=towers)
  _save(
    tmp_path / 'model', dataclasses.replace(model, encoder=contracts.encoder())
  )
  loaded, params, _ = checkpoint.load(tmp_path / 'model')
  assert dataclasses.replace(loaded, encoder=None) == model
  kernel = params['tower_mango']['body']['layer_0']['kernel']
  assert kernel.shape == (2, 64, 4)
  wrong = dataclasses.replace(model, tower=(lplmtl.MLP((2,)),))
  with pytest.raises(ValueError, match="'mango'\\]; found 1"):
    jax.eval_shape(wrong.init, jax.random.key(0), jnp.ones((1, 3)))


def test_saving_again_replaces(tmp_path):
  _save(tmp_path / 'model')
  _save(tmp_path / 'model', extra={'second': True})
  assert checkpoint.load_extra(tmp_path / 'model') == {'second': True}


@pytest.mark.parametrize('ends', ['with an error', 'by a kill'])
def test_breaking_off_between_two_renames(ends, tmp_path, monkeypatch):
  """The older model survives, and the next one can be written."""
  _save(tmp_path / 'model', extra={'number': 1})
  rename = os.rename

  def broken(path, target):
    if target == tmp_path / 'model' and path.name == 'new':
      raise KeyboardInterrupt if ends == 'by a kill' else OSError(5, 'broken')
    return rename(path, target)

  monkeypatch.setattr(os, 'rename', broken)
  error = KeyboardInterrupt if ends == 'by a kill' else pytrees.CheckpointError
  with pytest.raises(error):
    _save(tmp_path / 'model', extra={'number': 2})
  monkeypatch.undo()
  if ends == 'by a kill':
    assert not (tmp_path / 'model').exists()
    # Nothing is written, as the disk is full; the older one is back.
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
      patch.setattr('shutil.disk_usage', lambda path: usage._replace(free=1))
      with pytest.raises(pytrees.CheckpointError, match='no space left'):
        _save(tmp_path / 'model', extra={'number': 3})
  assert checkpoint.load_extra(tmp_path / 'model') == {'number': 1}
  _save(tmp_path / 'model', extra={'number': 4})
  assert checkpoint.load_extra(tmp_path / 'model') == {'number': 4}
  assert [p.name for p in tmp_path.iterdir()] == ['model']


class OwnExpert(nn.Module):
  """A user's module, with a user's function in a field."""

  width: int = 3
  activation: object = jnp.tanh

  @nn.compact
  def __call__(self, x):
    return self.activation(nn.Dense(self.width, dtype=jnp.bfloat16)(x))


def own_activation(x):
  return x * 2


def test_modules_of_the_users_own(tmp_path):
  here = sys.modules[__name__]
  expert = OwnExpert(activation=own_activation)
  model = lplmtl.MMoE(contracts.TASKS, expert=expert)
  with pytest.raises(ValueError, match='cannot save .*own_activation'):
    checkpoint.save(tmp_path / 'model', model, {'w': jnp.ones(2)})
  assert list(tmp_path.iterdir()) == []
  checkpoint.save(
    tmp_path / 'model', model, {'w': jnp.ones(2)}, modules=(here,)
  )
  assert checkpoint.load(tmp_path / 'model', modules=(here,))[0] == model
  with pytest.raises(checkpoint.CheckpointError, match='in `modules`'):
    checkpoint.load(tmp_path / 'model')


class Sequential(nn.Module):
  """The same in a user's class, with defaults that have no name."""

  layers: tuple[nn.Module, ...] = (OwnExpert(activation=own_activation),)
  scale: object = lambda x: x * 2

  @nn.compact
  def __call__(self, x):
    for layer in self.layers:
      x = layer(x)
    return self.scale(x)


@pytest.mark.parametrize(
  'part',
  [
    nn.Dense(3),
    nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(2, use_bias=False)]),
    Sequential((nn.Dense(2), nn.LayerNorm())),
  ],
)
def test_defaults_need_no_name(part, tmp_path):
  """Such as the initialisers of a dense layer: its class gives them back."""
  x = jnp.arange(6.0).reshape(2, 3)
  params = part.init(jax.random.key(0), x)['params']
  here = (sys.modules[__name__],)
  checkpoint.save(tmp_path / 'model', part, params, modules=here)
  loaded, found, _ = checkpoint.load(tmp_path / 'model', modules=here)
  contracts.assert_trees_equal(
    loaded.apply({'params': found}, x), part.apply({'params': params}, x)
  )
  contracts.assert_trees_equal(
    loaded.init(jax.random.key(0), x)['params'], params
  )


@pytest.mark.parametrize(
  'expert, complaint',
  [
    (nn.Dense(3, kernel_init=nn.initializers.normal()), 'Dense.kernel_init'),
    (nn.Sequential([nn.Dense(3), lambda x: x]), r'Sequential.layers\[1\]'),
    (nn.remat(lplmtl.MLP)((3,)), ''),
  ],
)
def test_what_has_no_name_is_said(expert, complaint):
  model = lplmtl.MMoE(contracts.TASKS, expert=expert)
  place = f'MMoE.expert: {complaint}' if complaint else 'MMoE.expert'
  with pytest.raises(
    ValueError, match=f'cannot save .* as {place}: .*wrap it in .*Linen class'
  ):
    blueprint.to_data(model, blueprint.known_names(()))


def test_dtypes_are_data(tmp_path):
  model = nn.Dense(3, dtype=jnp.bfloat16, kernel_init=nn.initializers.normal())
  with pytest.raises(ValueError, match='cannot save'):
    checkpoint.save(tmp_path / 'model', model, {'w': jnp.ones(2)})
  mlp = lplmtl.MLP((3,), dtype=jnp.bfloat16)
  checkpoint.save(tmp_path / 'model', mlp, {'w': jnp.ones(2)})
  loaded = checkpoint.load(tmp_path / 'model')[0]
  assert loaded.dtype == jnp.bfloat16


def _largest(folder):
  return max(
    (p for p in folder.rglob('*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )


@pytest.mark.parametrize(
  'damage', ['truncate', 'flip', 'delete', 'meta', 'empty']
)
def test_damage_is_noticed(damage, tmp_path, capfd):
  folder = tmp_path / 'model'
  _save(folder)
  file = _largest(folder / 'arrays')
  content = bytearray(file.read_bytes())
  if damage == 'truncate':
    file.write_bytes(content[: len(content) // 2])
  elif damage == 'flip':
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
  elif damage == 'delete':
    file.unlink()
  elif damage == 'meta':
    next(p for p in (folder / 'meta').rglob('*') if p.is_file()).write_text('{')
  else:
    for path in sorted(folder.rglob('*'), reverse=True):
      path.unlink() if path.is_file() else path.rmdir()
  with pytest.raises(
    checkpoint.CheckpointError, match=r'damaged|expected a model folder'
  ) as error:
    checkpoint.load(folder)
  assert '\n' not in str(error.value)
  assert capfd.readouterr().err == ''


def test_no_folder(tmp_path):
  with pytest.raises(
    checkpoint.CheckpointError, match='expected a model folder'
  ):
    checkpoint.load(tmp_path / 'nothing')


@pytest.mark.parametrize(
  'name', ['lplmtl.checkpoint:save', 'os:system', 'jax.nn:relu']
)
def test_a_model_file_cannot_name_other_code(name):
  lookup = blueprint.known_names(())
  with pytest.raises(ValueError, match='does not know|expected a Linen'):
    blueprint.from_data({'class': name, 'fields': {}}, lookup)


def test_tables_and_configuration_are_guarded_too(tmp_path):
  folder = tmp_path / 'model'
  _save(folder)
  meta = next(p for p in (folder / 'meta').rglob('*') if p.is_file())
  meta.write_text(meta.read_text().replace('1.75', '1.76'))
  with pytest.raises(checkpoint.CheckpointError, match='meta/.* has changed'):
    checkpoint.load(folder)


def test_other_folders_and_files_are_left_alone(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'folder' / 'keep').write_text('mine')
  (tmp_path / 'file').write_text('mine')
  for name in ('folder', 'file'):
    with pytest.raises(ValueError, match='is not a model folder'):
      _save(tmp_path / name)
  with pytest.raises(ValueError, match='brackets'):
    _save(tmp_path / 'a[1]')
  assert (tmp_path / 'folder' / 'keep').read_text() == 'mine'
  assert (tmp_path / 'file').read_text() == 'mine'
  assert len(list(tmp_path.iterdir())) == 2
  (tmp_path / 'empty').mkdir()
  _save(tmp_path / 'empty')
  checkpoint.load(tmp_path / 'empty')


def test_a_model_without_seeds_has_none_to_choose(tmp_path):
  checkpoint.save(tmp_path / 'model', lplmtl.MLP((3,)), {'w': jnp.ones(2)})
  with pytest.raises(checkpoint.CheckpointError, match='saved with no seeds'):
    checkpoint.load(tmp_path / 'model', seed=0)


@pytest.mark.parametrize(
  'change, complaint',
  [
    *(
      ({'seed': s}, 'seed must be None or a whole number of at least 0')
      for s in ('0', 1.0, np.arange(2), np.ones(1), True, -1)
    ),
    ({'modules': os}, 'modules must be a tuple'),
    ({'modules': ('os',)}, 'modules must be a tuple'),
    ({'directory': 3}, 'a string or a pathlib.Path, found 3'),
  ],
)
def test_bad_arguments_of_load(change, complaint):
  with pytest.raises(ValueError, match=complaint) as error:
    checkpoint.load(**{'directory': 'nothing', **change})
  assert '\n' not in str(error.value)


def test_seeds_may_be_numpy_numbers(tmp_path):
  params = {'w': jnp.arange(4.0).reshape(2, 2)}
  checkpoint.save(
    tmp_path / 'model', lplmtl.MLP((3,)), params, num_seeds=np.int64(2)
  )
  for seed in (np.uint8(1), jnp.int32(1)):
    found = checkpoint.load(tmp_path / 'model', seed=seed)[1]
    np.testing.assert_array_equal(found['w'], [2.0, 3.0])


def test_what_is_no_model_replaces_none(tmp_path):
  checkpoint.save(tmp_path / 'model', lplmtl.MLP((3,)), _small())
  with pytest.raises(ValueError, match='an instance'):
    checkpoint.save(tmp_path / 'model', lplmtl.MMoE, {'w': jnp.zeros(2)})
  found = checkpoint.load(tmp_path / 'model')[1]
  contracts.assert_trees_equal(found, _small())


def _small():
  return {'w': jnp.ones(2)}


@pytest.mark.parametrize(
  'model',
  [
    lplmtl.SharedBottom((tasks.multiclass('a', np.arange(3).max() + 1),)),
    lplmtl.MLP((np.int32(3),), dropout_rate=np.float32(0.2)),
    lplmtl.MLP((3,), dropout_rate=jnp.float32(0.25)),
    lplmtl.MLP((3,), dropout_rate=np.array(0.25)),
    lplmtl.MLP((3,), dtype=np.dtype('float16')),
    lplmtl.MLP((3,), dtype='bfloat16'),
    lplmtl.TabularEncoder((np.int64(3),), embed_dim=np.uint8(4)),
    lplmtl.TabularEncoder((3,), embed_dim=np.bool_(True)),
  ],
)
def test_numpy_numbers_come_back_as_numbers(model, tmp_path):
  checkpoint.save(tmp_path / 'model', model, _small())
  loaded, _, _ = checkpoint.load(tmp_path / 'model')
  assert loaded == model
  plain = json.dumps(blueprint.to_data(loaded, blueprint.known_names(())))
  again = json.dumps(blueprint.to_data(model, blueprint.known_names(())))
  assert plain == again


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'model': lplmtl.MLP((3,), activation=lambda x: x)}, 'cannot save <func'),
    ({'model': lplmtl.MLP((3,), dtype=object())}, 'cannot save <object'),
    ({'model': lplmtl.MLP((3,), dtype=np.ones((2, 2)))}, 'cannot save array'),
    ({'model': lplmtl.MLP((3,), dtype=np.complex64(1))}, 'cannot save'),
    ({'model': lplmtl.MLP((3,), dtype={1: 2})}, 'keys must be strings'),
    ({'extra': {'a': {1}}}, 'not JSON serializable'),
    ({'extra': {1: 2}}, 'keys must be strings'),
    ({'params': {}}, 'found no array'),
    ({'params': {'a': np.ones((0, 2))}}, r'found shape \(0, 2\) at .*a'),
    ({'params': {1: np.ones(2)}}, 'string keys'),
    (
      {'params': {'a.b': {'c': np.ones(2)}, 'a': {'b.c': np.ones(2)}}},
      'both be stored as a.b.c',
    ),
    ({'params': 'abc'}, "lists, of arrays; found 'abc'"),
    ({'params': {'a': 'b'}}, r"lists, of arrays; found \['a'\]"),
    ({'params': lplmtl.MLP((3,))}, 'lists, of arrays; found MLP'),
    ({'params': {'params': _small()}}, r"variables\['params'\]"),
    ({'num_seeds': 3}, r"axis of 3 seeds; found shape \(2,\) at \['w'\]"),
    ({'num_seeds': 1, 'params': {'w': 1.0}}, r'found shape \(\) at'),
    *(
      ({'num_seeds': n}, f'num_seeds .* at least 1, found {n!r}')
      for n in ('7', 2.5, 2.0, 0, -1, True)
    ),
    ({'tables': {'a': 1}}, "tables must be .*fit.* or None; found {'a': 1}"),
    ({'extra': [1]}, r'extra must be a dict .*; found \[1\]'),
    ({'modules': os}, 'modules must be a tuple .*; found <module'),
    ({'modules': ('os',)}, r"modules must be a tuple .*; found \('os',\)"),
    *(
      ({'model': m}, f'must be a Linen module .an instance.*found {found}')
      for m, found in (
        (lplmtl.MMoE, '<class .*MMoE'),
        (None, 'None'),
        ('mmoe', "'mmoe'"),
        (jax.nn.relu, '<jax'),
        (_small(), "{'w'"),
      )
    ),
    *(
      ({'directory': p}, f'a string or a pathlib.Path, found {found}')
      for p, found in (
        (None, 'None'),
        (3, '3'),
        (b'm', "b'm'"),
        (lplmtl.MLP((3,)), 'MLP'),
      )
    ),
  ],
)
def test_nothing_is_written_that_cannot_be_loaded(change, complaint, tmp_path):
  arguments = {
    'directory': tmp_path / 'model', 'model': lplmtl.MLP((3,)),
    'params': _small(), **change,
  }  # fmt: skip
  with pytest.raises(ValueError, match=complaint) as error:
    checkpoint.save(**arguments)
  assert '\n' not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_extra_data_may_hold_numpy_numbers(tmp_path):
  extra = {'rate': np.float32(0.5), 'sizes': (np.int64(3), None), 'nan': np.nan}
  checkpoint.save(tmp_path / 'model', lplmtl.MLP((3,)), {'w': 1.0}, extra=extra)
  found = checkpoint.load_extra(tmp_path / 'model')
  assert repr(found) == "{'rate': 0.5, 'sizes': [3, None], 'nan': nan}"


def _without(name):
  def change(meta):
    del meta[name]

  return change


def _with(value, *path):
  def change(meta):
    for name in path[:-1]:
      meta = meta[name]
    meta[path[-1]] = value

  return change


@pytest.mark.parametrize(
  'change',
  [
    *(_without(n) for n in ('format', 'model', 'tables', 'num_seeds')),
    *(_with(v, 'format') for v in (None, 0, True, '2', 10**400)),
    _with('abc', 'num_seeds'),
    _with(7, 'num_seeds'),
    *(_with(v, 'model') for v in (None, 'abc', [], {}, {'dtype': 'int32'})),
    _with({'function': 'jax.nn:relu'}, 'model'),
    _with({'dict': 5}, 'model'),
    _with(['lplmtl.experts:MLP'], 'model', 'class'),
    _with(None, 'model', 'fields'),
    _with(3, 'model', 'fields', 'of_a_newer_release'),
    _with({'dtype': 'object'}, 'model', 'fields', 'dtype'),
    _with({'dtype': [1]}, 'model', 'fields', 'dtype'),
    *(_with(v, 'tables') for v in (5, [], {'vocabularies': {'a': 5}})),
    _with({'a': {'log': 1}}, 'tables', 'numerics'),
    _with({'a': {'edges': []}}, 'tables', 'numerics'),
  ],
)
def test_metadata_of_another_release(change, tmp_path, monkeypatch):
  """And what nobody wrote: one line, whatever stands there."""
  meta = {
    'format': checkpoint.FORMAT,
    'model': blueprint.to_data(lplmtl.MLP((3,)), blueprint.known_names(())),
    'tables': TABLES.to_json(),
    'num_seeds': 2,
    'extra': {},
  }
  monkeypatch.setattr(
    pytrees, 'read', lambda path: ({'w': np.ones((2, 3))}, meta)
  )
  (tmp_path / folders.CHECKSUMS).touch()
  checkpoint.load(tmp_path, seed=1)
  change(meta)
  with pytest.raises(checkpoint.CheckpointError) as error:
    checkpoint.load(tmp_path, seed=1)
  assert '\n' not in str(error.value) and len(str(error.value)) < 900


@pytest.mark.parametrize('read', [checkpoint.load, checkpoint.load_extra])
def test_a_newer_release_is_named(read, tmp_path, monkeypatch):
  newer = checkpoint.FORMAT + 1
  _save(tmp_path / 'model')
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, 'FORMAT', newer)
    _save(tmp_path / 'newer')
  read(tmp_path / 'model')
  with pytest.raises(
    checkpoint.CheckpointError,
    match=f'newer release .format {newer}; .* {newer - 1}.: update',
  ) as error:
    read(tmp_path / 'newer')
  assert '\n' not in str(error.value)


# As format 1 stored them: the first module that had imported the object.
FORMAT_1_NAMES = {
  **{
    f'lplmtl.architectures:{n}': getattr(lplmtl, n) for n in 'SPLE AITM'.split()
  },
  'lplmtl.encoder:TabularEncoder': lplmtl.TabularEncoder,
  'lplmtl.encoder:CrossNetwork': lplmtl.CrossNetwork,
  'lplmtl.experts:MLP': lplmtl.MLP,
  'lplmtl.experts:Experts': lplmtl.Experts,
  'lplmtl.losses:Task': lplmtl.Task,
  'lplmtl.types:Task': lplmtl.Task,
  'lplmtl.losses:squared_error': losses.squared_error,
  'lplmtl.metrics:r2': metrics.r2,
  'flax.linen:relu': jax.nn.relu,
  'flax.linen:normalize': jax.nn.standardize,
  'flax.linen:swish': jax.nn.silu,
  'jax.nn:hard_swish': jax.nn.hard_silu,
  'jax.nn:relu': jax.nn.relu,
  'jax.nn:mish': jax.nn.mish,
  'flax.linen:dot_product_attention': nn.dot_product_attention,
  'jax.nn:dot_product_attention': jax.nn.dot_product_attention,
}


@pytest.mark.parametrize('name', FORMAT_1_NAMES)
def test_names_of_format_1(name):
  lookup = blueprint.known_names(())
  assert blueprint.from_data({'function': name}, lookup) is FORMAT_1_NAMES[name]
  stored = blueprint.to_data({'': FORMAT_1_NAMES[name]}, lookup)['dict']['']
  assert stored['function'].split(':')[0] in blueprint.NAMES


def test_every_name_is_public_and_stands_once():
  lookup = blueprint.known_names(())
  for module, names in blueprint.NAMES.items():
    for name in names:
      stored = blueprint.to_data(lookup[f'{module}:{name}'], lookup)
      assert stored == {'function': f'{module}:{name}'}
  for cls in (*architectures.ARCHITECTURES, *architectures.CHAINS):
    assert lookup[f'lplmtl:{cls.__name__}'] is getattr(lplmtl, cls.__name__)


def test_fields_that_have_moved(monkeypatch):
  fields = {
    'units': [3],
    'bias': {'function': 'no:longer'},
    'dropout_rate': 0.5,
  }
  data = {'class': 'lplmtl.experts:MLP', 'fields': fields}
  lookup = blueprint.known_names(())
  with pytest.raises(ValueError, match='no:longer'):
    blueprint.from_data(data, lookup)
  # A field that the class still has is not moved.
  moved = {'units': 'widths', 'bias': None, 'dropout_rate': None}
  monkeypatch.setitem(blueprint.MOVED_FIELDS, 'lplmtl:MLP', moved)
  expected = lplmtl.MLP((3,), dropout_rate=0.5)
  assert blueprint.from_data(data, lookup) == expected


@pytest.mark.parametrize('extra', [None, 5])
def test_extra_data_that_are_not_there(extra, tmp_path, monkeypatch):
  meta = {'format': checkpoint.FORMAT, 'extra': extra}
  if extra is None:
    del meta['extra']
  monkeypatch.setattr(pytrees, 'read', lambda path: ({}, meta))
  (tmp_path / folders.CHECKSUMS).touch()
  with pytest.raises(checkpoint.CheckpointError, match='extra is'):
    checkpoint.load_extra(tmp_path)
