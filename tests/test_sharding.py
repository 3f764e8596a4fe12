"""Tables of which eight devices hold an eighth each."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import optax
import pytest

from lplmtl import sparse
from lplmtl.training import programs

ROOT = pathlib.Path(__file__).parent.parent
TABLES = {
  'encoder/embedding': 48,
  'encoder/buckets': 16,
  'encoder/composed/remainders': 16,
  'encoder/composed/quotients': 8,
}


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  flag = '--xla_force_host_platform_device_count=8'
  folder = tmp_path_factory.mktemp('sharded')
  process = subprocess.run(
    [sys.executable, '-m', 'tests.sharding_check', str(folder / 'run')],
    cwd=ROOT, env={**os.environ, 'XLA_FLAGS': flag}, capture_output=True,
    text=True, check=False,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  return json.loads(process.stdout)


@pytest.mark.slow
def test_each_device_holds_an_eighth(found):
  """Of the tables, and of both moments of Adam."""
  held = found['many']['tables']
  for name, rows in TABLES.items():
    kept = [one for path, one in held.items() if path.endswith(name)]
    assert len(kept) == 3, name
    for one in kept:
      width = one['shape'][1:]
      assert one['shape'] == [rows, *width], name
      assert one['parts'] == [[rows // 8, *width]] * 8
  others = [
    one
    for path, one in held.items()
    if not any(path.endswith(name) for name in TABLES)
  ]
  assert all(one['parts'] == [one['shape']] * 8 for one in others)


@pytest.mark.slow
def test_losses_of_50_steps(found):
  """With dropout, a Gramian, and a run that is resumed within an epoch."""
  one, many = (np.array(found[name]['losses']) for name in ('one', 'many'))
  assert found['left'] == 23 and one.shape == (5, 2, 2)
  np.testing.assert_allclose(many, one, atol=1e-5, rtol=1e-5)
  assert (one[0] > one[-1]).all()
  sums = (
    {path: leaf['sum'] for path, leaf in found[name]['tables'].items()}
    for name in ('one', 'many')
  )
  first, second = sums
  assert second == pytest.approx(first, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_rows_must_divide_evenly(found):
  assert found['error'] == (
    'the 9 rows of encoder/buckets do not divide evenly among 8 devices: '
    'set TabularEncoder(multiple_of=8), or use sparse.lazy without sharded=True'
  )


def test_functions_of_hyperparams_return_no_sharded_optimiser():
  with pytest.raises(ValueError, match='must be passed as it is'):
    programs.build(
      (lambda rate: sparse.lazy(optax.adam(rate), sharded=True),), 0.1
    )
