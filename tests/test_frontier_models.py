"""The model folders of a frontier: written, made again, exported, refused."""

import csv
import json
import types

import jax
import numpy as np
import pytest

from experiments import export, tabular
from experiments.comparison.rows import Finished
from experiments.frontier import models, points
from experiments.launcher.errors import InputError
from lplmtl import checkpoint, compression, data, tables
from lplmtl import tabular as library
from lplmtl.compression import packing, quantization, student
from lplmtl.tabular import schema as schemas
from tests import contracts
from tests.launching import launch

NAMES = ['net 300', 'net 900']
ROWS = data.customers(60, seed=3)
CATEGORY = next(n for n, x in ROWS.items() if isinstance(x[0], str))
NUMBER = next(n for n, x in ROWS.items() if isinstance(x[0], float))
SCHEMA = library.Schema(
  {CATEGORY: schemas.Input('category'), NUMBER: schemas.Input('number')},
  {'paid': schemas.Target('binary', ('no', 'yes'), 'yes')},
)


def _kept():
  """A small network of three seeds, as `compress` returns it."""
  fitted = tables.fit(
    {CATEGORY: ROWS[CATEGORY]},
    {NUMBER: ROWS[NUMBER]},
    num_bins=4,
    rules=tables.Rules(fill_missing=True),
  )
  sizes = student.Sizes()
  inside = student.make(library.make_tasks(SCHEMA), fitted, sizes)
  model = compression.Quantized(inside, sizes.scheme)
  features = fitted.encode(ROWS)
  seeds = [contracts.random_params(model, features, seed=i) for i in range(3)]
  params = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
  return models.Kept(model, params, fitted)


def _row(name, arrays):
  return Finished(name, {}, 3, {'family': 'net'}, arrays, {})


def _write(folder, rows):
  lines = []
  extra = {'schema': SCHEMA.to_json()}
  return models.write(folder, NAMES, rows, extra, lines.append), lines


@pytest.fixture(scope='module')
def kept():
  return _kept()


@pytest.fixture(scope='module')
def frontier(kept, tmp_path_factory):
  """The folder of a frontier, one of whose rows was left out."""
  folder = tmp_path_factory.mktemp('frontier')
  rows = [_row('net 900', models.to_arrays(kept))]
  assert _write(folder, rows) == (['net 900'], [])
  return folder


def test_a_cell_keeps_what_is_saved(kept, frontier):
  model, params, fitted = checkpoint.load(frontier / 'models' / 'net_900')
  assert (model, fitted) == (kept.model, kept.tables)
  contracts.assert_trees_equal(params, kept.params)
  assert checkpoint.num_seeds(frontier / 'models' / 'net_900') == 3


def test_it_is_exported_packed(kept, frontier, tmp_path):
  flags = f'--model={frontier / "models/net_900"}', f'--to={tmp_path}'
  assert launch(export.main, *flags, '--format=packed', '--seed_index=2') == 0
  report = json.loads((tmp_path / 'report.json').read_text())
  last = jax.tree.map(lambda x: x[2], kept.params)
  frozen = quantization.freeze(kept.model, last)
  packed = packing.pack(frozen, kept.tables)
  assert report['forms']['packed']['constants'] == packed.num_bytes
  header = ' '.join((tmp_path / 'model.h').read_text().split())
  assert "'paid': the probability of 'yes'" in header


def test_it_predicts_a_table(frontier, tmp_path):
  """Like any model of `experiments.tabular`: the mean of its seeds."""
  table, scores = tmp_path / 'new.csv', tmp_path / 'scores.csv'
  with open(table, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow([CATEGORY, NUMBER])
    writer.writerows(zip(ROWS[CATEGORY], ROWS[NUMBER], strict=True))
  model = frontier / 'models' / 'net_900'
  flags = f'--data={table}', f'--model={model}', f'--predict_to={scores}'
  assert launch(tabular.main, *flags) == 0
  with open(scores, newline='') as file:
    found = [float(row['paid_probability']) for row in csv.DictReader(file)]
  expected = library.load(model).predict(ROWS)['paid_probability']
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_folder_of_a_row_that_is_not_finished_is_removed(frontier, tmp_path):
  """Also if an earlier version fitted the row, which is said."""
  arrays = models.to_arrays(_kept())
  rows = [_row(name, arrays) for name in NAMES]
  assert _write(tmp_path, rows) == (NAMES, [])
  written, (line,) = _write(tmp_path, [rows[0], _row('net 900', {})])
  assert written == ['net 300'] and '--overwrite' in line
  assert [p.name for p in (tmp_path / 'models').iterdir()] == ['net_300']
  models.clear(tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_folder_of_others_is_refused_and_left(tmp_path):
  other = tmp_path / 'models' / 'net_300'
  other.mkdir(parents=True)
  (other / 'mine').touch()
  with pytest.raises(InputError, match='net_300 exists and is not a model'):
    models.check(tmp_path, NAMES)
  models.clear(tmp_path)
  assert (other / 'mine').exists()
  (tmp_path / 'file').mkdir()
  (tmp_path / 'file' / 'models').touch()
  with pytest.raises(InputError, match='models is not a folder'):
    models.check(tmp_path / 'file', NAMES)


def test_the_next_command_names_the_smallest_that_is_good_enough(
  tmp_path, monkeypatch
):
  rows = [
    {'name': n, 'family': 'net', 'num_bytes': i, 'verdict': verdict}
    for i, (n, verdict) in enumerate(
      zip(NAMES, ('worse on paid', 'equivalent'), strict=True)
    )
  ]
  said = models.next_command(tmp_path, NAMES, {'rows': rows, 'knees': {}})
  assert f'--model={tmp_path}/models/net_900 --format=packed' in said
  of_knee = {'rows': rows[:1], 'knees': {'net': 'net 300'}}
  assert 'models/net_300 ' in models.next_command(tmp_path, NAMES, of_knee)
  installed = tmp_path / 'lplmtl' / 'experiments' / 'compress.py'
  installed.parent.mkdir(parents=True)
  (tmp_path / 'lplmtl' / '__init__.py').touch()
  monkeypatch.setattr('sys.argv', [str(installed)])
  none = {'rows': [], 'knees': {}}
  said = models.next_command(tmp_path, NAMES, none)
  assert 'lplmtl export --model=' in said and 'models/net_900 ' in said


def test_the_model_of_a_frontier_must_be_named(frontier, capsys):
  assert launch(export.main, f'--model={frontier}') == 1
  error = capsys.readouterr().err
  assert f'such as --model={frontier}/models/net_900' in error


def test_a_point_keeps_arrays_beside_its_outputs():
  rows = types.SimpleNamespace()
  outputs = {'paid': np.zeros((3, 5, 1))}
  made = points.Scored([9], {}, {}, outputs, kept={'model: JSON': np.ones(2)})
  own = types.SimpleNamespace(tasks=(), test=rows, validation=rows)
  point = points.Point('net 9', 'net', {}, own, lambda: made, 9, 3)
  fitted = point.final(point.choose({})).fit()
  assert fitted.arrays.keys() == {'paid', 'model: JSON'}
