"""experiments.streaming: its rows, its workers, its table."""

import numpy as np
import pytest

pytest.importorskip('pyarrow')

import lplmtl
from experiments.benchmark import (
  anonymous,
  streamed,
  streamed_rows,
  streamed_worker,
)
from lplmtl import columns, data

CONFIG = {
  'chunk_rows': 512, 'rows_in_memory': 1000, 'steps': 6, 'first_steps': 3,
  'threads': 1, 'batch_size': 128, 'width': 4, 'num_seeds': 1, 'epochs': 1,
  'test_rows': 300,
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('benchmark')
  streamed_rows.write_parquet(path / 'files', 2000)
  took = streamed_rows.write_encoded(path)
  assert 0 < took.fitted < took.done
  return path


def test_sorted_files_hold_the_same_rows(folder, tmp_path):
  streamed_rows.write_parquet(tmp_path / 'files', 2000, is_sorted=True)

  def rows(path):
    found = [
      np.stack([columns.spread(piece[name]) for name in ('x0', 'click')])
      for piece in data.ArrowFiles(path).pieces()
    ]
    return np.concatenate(found, axis=1)

  ours, mixed = rows(tmp_path / 'files'), rows(folder / 'files')
  assert (np.diff(ours[1]) >= 0).all() and not (np.diff(mixed[1]) >= 0).all()
  np.testing.assert_array_equal(np.sort(ours[0]), np.sort(mixed[0]))


@pytest.mark.slow
def test_workers_answer(folder, tmp_path, monkeypatch):
  def quick_to_compile(tasks, levels, encoder):
    return lplmtl.SharedBottom(tasks, encoder, levels[0], lplmtl.MLP(()))

  monkeypatch.setattr(lplmtl, 'PLE', quick_to_compile)
  config = {**CONFIG, 'folder': str(folder), 'checkpoints': str(tmp_path)}
  found = {}
  for form in streamed_rows.MEMORY, streamed_rows.ENCODED:
    peak = anonymous.Peak()
    worker = streamed_worker.Worker({**config, 'form': form}, set(), peak)
    found[form] = [worker.rate()]
    assert found[form][0]['rows'] == 6 * 128
  assert 0.4 < worker.auc()[0]['click'] < 1
  assert len(worker.digest()['sha256']) == 64
  ours = found[streamed_rows.MEMORY]
  cells = streamed._cells(found[streamed_rows.ENCODED], ours)
  assert cells[1].endswith(' %')
  assert streamed._cells(ours, ours)[1] == '100.0 %'


@pytest.mark.skipif(not anonymous.now(), reason='only on Linux')
def test_the_peak_of_memory_outlasts_what_took_it():
  n = 2**26
  with anonymous.watched() as peak:
    before = peak.most
    rows = np.ones(n, np.uint8)
    peak.look()
    del rows
  assert before + n <= peak.most + 2**20
  assert anonymous.now() < peak.most
