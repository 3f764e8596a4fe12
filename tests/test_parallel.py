"""Eight devices compute the same as one."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from lplmtl import checkpoint
from lplmtl.training import parallel

ROOT = pathlib.Path(__file__).parent.parent
# The programs of eight devices take more than a minute to compile.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('eight')


@pytest.fixture(scope='module')
def found(folder):
  flag = '--xla_force_host_platform_device_count=8'
  process = subprocess.run(
    [sys.executable, '-m', 'tests.parallel_check', str(folder)],
    cwd=ROOT, env={**os.environ, 'XLA_FLAGS': flag}, capture_output=True,
    text=True, check=False,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  results = json.loads(process.stdout)
  assert results.pop('devices') == 8
  return results


def test_a_single_seed_splits_its_batches(found):
  """Each of the eight devices holds an eighth of the rows of every step."""
  assert found['1 held'] == [[1, 50, 8]] * 8
  assert found['5 held'] == [[5, 50, 64]] * 5  # a seed each


@pytest.mark.parametrize('num_seeds', [1, 5])
def test_chunks_of_a_source(num_seeds, found):
  """A device holds the rows of one shard, or all rows if it has its own seed.

  With dropout, and labels that are missing unevenly, by MGDA on the Gramian of the
  representation, and by FAMO; resumed runs, below, by PCGrad and learned weights.
  """
  case = found[f'{num_seeds} streamed']
  one, many = np.array(case['one']), np.array(case['many'])
  assert one.shape == (10, num_seeds, 2)
  np.testing.assert_allclose(many, one, atol=1e-5, rtol=1e-5)
  assert not np.allclose(one[0], one[-1])
  assert "the loss of task 'zebra' is nan" in case['error']


@pytest.mark.parametrize('rows', [3, 13])
def test_gates_of_rows_that_devices_share(rows, found):
  """With 3 rows, five of eight devices have none."""
  one, many = (np.array(found[f'{rows} looked at'][k]) for k in ('one', 'many'))
  np.testing.assert_allclose(many, one, rtol=1e-5)
  np.testing.assert_allclose(one[1:].sum(), 1, rtol=1e-5)


def test_mesh_sizes():
  devices = jax.devices() * 8  # only counted here
  assert parallel.make_mesh(1, None, devices[:1]).size == 1
  assert parallel.make_mesh(3, 64, devices[:1]).axis_names == ('seeds',)
  assert parallel.make_mesh(1, 64, devices[:1]).axis_names == ('data',)


def test_what_eight_devices_saved_is_loaded_on_one(found, folder):
  case = found['5 resumed']
  assert case['devices'] == 5  # a seed each
  _, params, _ = checkpoint.load(folder / '5' / 'model', seed=3)
  kernel = params['tower_zebra']['head']['kernel']
  np.testing.assert_array_equal(kernel, np.float32(case['saved'][3]))


@pytest.mark.parametrize('num_seeds', [1, 5])
def test_a_run_resumes_with_another_number_of_devices(num_seeds, found):
  """Saved on eight devices within an epoch, resumed on one; 65 steps in all."""
  case = found[f'{num_seeds} resumed']
  assert case['left'] == 13
  whole, resumed = np.array(case['whole']), np.array(case['resumed'])
  assert whole.shape == (13, num_seeds, 2)
  np.testing.assert_allclose(resumed, whole, atol=1e-5, rtol=1e-5)
