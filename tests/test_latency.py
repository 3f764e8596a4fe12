"""experiments.latency: every contestant scores rows, and mistakes are a line."""

import json
import shutil
import sys

import numpy as np
import pytest

import lplmtl
from experiments import datasets, latency
from experiments.benchmark import equal_trees, single_rows, tree_onnx
from experiments.benchmark import latency as measured
from experiments.launcher import display
from experiments.launcher.options import Config
from lplmtl import checkpoint
from tests import contracts
from tests.golden import write as golden
from tests.launching import launch

GOLDEN = f'--model={golden.FOLDER / "format2"}'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """What a run on the sample saves, but for the training."""
  config = Config(dataset='sample', num_rows=2000, num_bins=4)
  source = datasets.find(config).load(config, display.make_console(), {})
  data = source.encode(config.num_bins)
  encoder = lplmtl.TabularEncoder(
    data.tables.num_categories, 2, data.tables.num_ordered
  )
  model = lplmtl.SharedBottom(data.tasks, encoder, bottom=lplmtl.MLP((8,)))
  params = contracts.random_params(model, data.test.features)
  folder = tmp_path_factory.mktemp('run')
  checkpoint.save(
    folder / 'model', model, params, data.tables,
    extra={'config': config.to_json()},
  )  # fmt: skip
  return f'--model={folder}'


@pytest.mark.slow
def test_all_forms_and_trees_take_turns(run, tmp_path, capsys, monkeypatch):
  for package in ('lightgbm', 'onnx', 'onnxruntime'):
    pytest.importorskip(package)
  if not shutil.which('cc'):
    pytest.skip('needs a C compiler')
  monkeypatch.setenv('XLA_FLAGS', '')
  monkeypatch.setattr(equal_trees, 'LEAVES', (4,))
  monkeypatch.setattr(single_rows, 'NUM_ROWS', 8)
  monkeypatch.setattr(measured, 'LEAST', 0.001)
  out = tmp_path / 'figures.json'
  assert launch(latency.main, run, '--turns=2', f'--out={out}') == 0
  figures = json.loads(out.read_text())
  names = [(x['contestant'], x['reads']) for x in figures['measured']]
  assert len(set(names)) == len(names)
  for expected in (
    ('C -O2, float', 'raw'), ('C -O3, 8 bits', 'encoded'),
    ('JAX, make_predictor', 'encoded'), ('NumPy, float', 'raw'),
    ('onnxruntime, 8 bits', 'raw'), ('trees, LightGBM, C', 'encoded'),
    ('trees, onnxruntime', 'encoded'),
  ):  # fmt: skip
    assert expected in names
  for one in figures['measured']:
    for clock in ('cpu', 'wall'):
      assert len(one[clock]) == 2 and min(one[clock]) > 0
  assert figures['trees'].keys() == figures['scores']['float'].keys()
  # Random weights tell nothing: one tree is better.
  assert all(0.5 < x['test'] < 1 for x in figures['trees'].values())
  assert figures['versions']['lightgbm'] and figures['compiler']
  printed = capsys.readouterr().out
  assert 'One row' in printed and 'trees for income: ' in printed


def test_the_fewest_comparisons_that_are_as_good():
  history = {8: [0.7, 0.8, 0.9, 0.9], 16: [0.8, 0.9, 0.9], 32: [0.8, 0.84]}
  assert equal_trees.choose(history, 0.85) == (16, 2)  # 8 rather than 9
  assert equal_trees.choose(history, 0.75) == (16, 1)
  almost = {8: [0.7, 0.8], 16: [0.9 - equal_trees.SLACK / 2, 0.9]}
  assert equal_trees.choose(almost, 0.99) == (16, 1)


def test_trees_in_onnx_predict_as_lightgbm_does():
  """Sets of categories, unseen ones, missing numbers, a tree of one leaf."""
  lightgbm = pytest.importorskip('lightgbm')
  pytest.importorskip('onnx')
  runtime = pytest.importorskip('onnxruntime')
  rng = np.random.default_rng(0)
  x = np.c_[rng.integers(0, 30, 900), rng.normal(size=(900, 2))]
  x[::7, 1] = np.nan
  y = np.sin(x[:, 0]) + x[:, 2] + np.nan_to_num(x[:, 1], nan=2) > 0.5
  fixed = {'objective': 'binary', 'verbosity': -1, 'num_threads': 1}
  boosters = {
    name: lightgbm.train(
      {**fixed, **more}, lightgbm.Dataset(x, y, categorical_feature=[0]), 20
    )
    for name, more in (('many', {}), ('one', {'min_data_in_leaf': 900}))
  }
  model = tree_onnx.to_model(boosters, 3).SerializeToString()
  session = runtime.InferenceSession(model)
  x[0, 0] = 99
  found = session.run(list(boosters), {'x': x})
  for booster, values in zip(boosters.values(), found, strict=True):
    np.testing.assert_allclose(values[:, 0], booster.predict(x), rtol=1e-12)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], '--model must name a run'),
    (['--model=/nowhere'], 'found none at /nowhere'),
    (['--epochs=3'], '--epochs is a setting of a run: leave it out'),
    ([GOLDEN, '--notrees'], 'without the configuration of a run'),
    ([GOLDEN], 'leave them out with --notrees'),
  ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, message, capsys, monkeypatch):
  for package in ('lightgbm', 'onnxruntime'):
    pytest.importorskip(package)
  monkeypatch.setenv('XLA_FLAGS', '')
  assert launch(latency.main, *arguments) == 1
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) == 1


def test_a_missing_runtime_is_one_line(run, capsys, monkeypatch):
  pytest.importorskip('onnx')
  monkeypatch.setenv('XLA_FLAGS', '')
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  assert launch(latency.main, run) == 1
  error = capsys.readouterr().err
  assert 'pip install onnxruntime' in error and len(error.splitlines()) == 1
