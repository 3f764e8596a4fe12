"""Rows that `fit` reads in chunks."""

import gc
import shutil
import threading
import weakref

import jax
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, data, resume, tasks, training
from lplmtl.data import sharded
from lplmtl.training import scanning, shuffle
from tests import contracts

TASKS = tasks.binary('click'), tasks.regression('price')
MODEL = lplmtl.SharedBottom(
  TASKS, bottom=lplmtl.MLP((8,), dropout_rate=0.1), tower=lplmtl.MLP((4,))
)
OPTIMIZER, BALANCER = optax.adam(1e-2), balancing.uncertainty()
BATCH = 16


def _rows(n=200, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, 5)).astype(np.float32)
  x[:, 0] = np.arange(n) / n  # tells rows apart
  labels = {
    'click': (x[:, 1] > x[:, 2]).astype(np.int32),
    'price': x[:, 1].astype(np.float32),
  }
  return lplmtl.Batch(x, labels, {'price': x[:, 3] > -1})


def _fit(data, key=0, **changes):
  arguments = {'batch_size': BATCH, 'num_epochs': 2, **changes}
  key = jax.random.key(key) if isinstance(key, int) else key
  return lplmtl.fit(key, MODEL, OPTIMIZER, BALANCER, data, **arguments)


@pytest.fixture(scope='module')
def source():
  return sharded.Sharded(_rows(), num_shards=8, num_chunks=2)


@pytest.fixture(scope='module')
def whole(source):
  return _fit(source)


class Spy:
  """A source that records what is read, and fails where it is told to."""

  def __init__(self, source, fails_at=None):
    self.source, self.fails_at, self.read = source, fails_at, []

  def __getattr__(self, name):
    return getattr(self.source, name)

  def chunk(self, epoch, number, shards):
    self.read.append((epoch, number, threading.current_thread().name))
    if (epoch, number) == self.fails_at:
      raise OSError('the disk is gone')
    return self.source.chunk(epoch, number, shards)


def test_a_batch_has_rows_of_each_shard_and_none_twice(source):
  keys = jax.vmap(jax.random.key)(np.arange(2))
  rows = {
    devices: shuffle.make_chunk_shuffle(keys, source, BATCH, devices)
    for devices in (1, 4)
  }
  seen = []
  for number in range(source.num_chunks):
    chunk = source.chunk(3, number, range(8))
    order = rows[1](3, number, range(8))
    assert order.shape == (2, source.chunk_rows // BATCH, BATCH)
    assert order.dtype == np.int32
    # The same rows on four devices, of which each counts from its first row.
    first = np.repeat(np.arange(4), BATCH // 4) * (source.chunk_rows // 4)
    np.testing.assert_array_equal(rows[4](3, number, range(8)) + first, order)
    np.testing.assert_array_equal(
      rows[1](3, number, [2, 5]), order[..., [4, 5, 10, 11]]
    )
    shards = order // (source.chunk_rows // 8)
    np.testing.assert_array_equal(
      shards, np.broadcast_to(np.repeat(np.arange(8), 2), shards.shape)
    )
    seen.append(chunk.features[order[0]][..., 0])
  seen = np.concatenate([x.ravel() for x in seen])
  assert len(np.unique(seen)) == len(seen) == 192
  again = rows[1](4, 0, range(8))
  assert not np.array_equal(again, rows[1](3, 0, range(8)))


def test_the_rows_left_out_differ_between_epochs(source):
  """No row is lost over epochs: 200 rows, of which two chunks hold 192."""
  seen = set()
  for epoch in range(5):
    rows = [source.chunk(epoch, i, range(8)).features[:, 0] for i in range(2)]
    rows = np.concatenate(rows)
    assert len(np.unique(rows)) == len(rows) == 192
    seen |= set(rows.tolist())
  assert len(seen) == 200


def test_chunks_are_read_one_ahead_in_one_thread(source, whole):
  spy = Spy(source)
  result = _fit(spy)
  places = [(epoch, number) for epoch, number, _ in spy.read]
  assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]
  assert {name for *_, name in spy.read} == {'chunks_0'}
  assert not any(t.name.startswith('chunks') for t in threading.enumerate())
  assert result.steps_taken == 24
  assert result.history[0]['losses'].shape == (1, 2)
  contracts.assert_trees_equal(result.params, whole.params)


def test_what_reading_raises_ends_the_fit(source):
  with pytest.raises(OSError, match='the disk is gone'):
    _fit(Spy(source, fails_at=(1, 0)))
  assert not any(t.name.startswith('chunks') for t in threading.enumerate())


class Pauses:
  """A keeper that pauses at each third step, and keeps one progress."""

  def __init__(self, keep=None, resume_from=None):
    self.keep, self.kept, self.resume_from = keep, None, resume_from

  def restore(self, like):
    del like
    return self.resume_from

  def next_pause(self, progress):
    return min(progress.step + 3, progress.num_steps)

  def save_if_due(self, progress):
    if progress.total_steps == self.keep:
      self.kept = progress


def test_a_run_resumes_within_a_chunk_to_the_same_bits(source, whole):
  step = 9
  keeper, spy = Pauses(keep=step), Spy(source)
  paused = _fit(spy, keeper=keeper)
  assert len(spy.read) == 4  # a pause does not read a chunk again
  contracts.assert_trees_equal(paused.params, whole.params)
  spy = Spy(source)
  resumed = _fit(spy, keeper=Pauses(resume_from=keeper.kept))
  assert spy.read[0][:2] == divmod(step // 6, 2)
  assert resumed.steps_taken == 24 - step
  contracts.assert_trees_equal(resumed.params, whole.params)
  assert repr(resumed.history) == repr(whole.history)


def test_checkpoints_tell_whose_rows_they_are(source, tmp_path):
  def fit(data, stop):
    with resume.Checkpoints(tmp_path, every_steps=7) as keeper:
      keeper.stop.set() if stop else None
      return _fit(data, keeper=keeper)

  with pytest.raises(resume.Interrupted):
    fit(source, stop=True)
  other = sharded.Sharded(_rows(seed=1), num_chunks=2)
  with pytest.raises(resume.RestoreError, match='run on other rows'):
    fit(other, stop=False)
  with pytest.raises(resume.RestoreError, match='other rows|does not fit'):
    fit(_rows(192), stop=False)


def test_a_non_finite_loss_is_found_in_a_chunk():
  rows = _rows()
  rows.features[77, 1] = np.nan
  with pytest.raises(
    training.NonFiniteError, match='of epoch 1 .* the loss of task'
  ):
    _fit(sharded.Sharded(rows, num_chunks=2))


@pytest.mark.slow
def test_seeds_see_the_chunk_in_orders_of_their_own(source, whole):
  keys = jax.vmap(jax.random.key)(np.arange(2))
  result = _fit(source, keys)
  one = jax.tree.map(lambda x: x[0], result.params)
  contracts.assert_trees_close(one, whole.params, atol=1e-4)
  first, second = result.history[0]['losses']
  assert not np.allclose(first, second)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'batch_size': 20}, 'a multiple of the 8 shards of the data, found 20'),
    ({'batch_size': 104}, 'number of rows of a chunk, 96; found 104'),
    ({'data': [1, 2]}, 'or a source of rows with .*; found list'),
  ],
)
def test_sizes_that_do_not_fit_are_named(source, changes, message):
  with pytest.raises(ValueError, match=message):
    _fit(**{'data': source, **changes})


def test_a_chunk_of_another_form_is_named(source):
  class Wide(Spy):
    def chunk(self, *place):
      batch = super().chunk(*place)
      return batch._replace(features=batch.features[:, :4])

  with pytest.raises(
    ValueError,
    match=r'chunk 0 of epoch 0 must .* expected float32\[N, 5\] at .features',
  ):
    _fit(Wide(source))


@pytest.fixture
def small_blocks(monkeypatch):
  """Blocks of 64 rows, so that 150 rows are three, the last of 22."""
  monkeypatch.setattr(scanning, '_BLOCK', 64)


def test_validation_rows_of_a_source(source, small_blocks):
  rows = _rows(150, seed=5)
  inside = _fit(source, validation=rows, patience=2)
  found = _fit(
    source, validation=sharded.Sharded(rows, num_shards=3), patience=2
  )
  contracts.assert_trees_equal(found.params, inside.params)
  for one, other in zip(found.history, inside.history, strict=True):
    contracts.assert_trees_close(
      one['validation'], other['validation'], atol=1e-6
    )


def test_scoring_a_source(whole, small_blocks):
  rows = _rows(150, seed=5)
  table = sharded.Sharded(rows, num_shards=3)
  found = training.evaluate_source(MODEL, whole.params, table)
  evaluate = jax.jit(lplmtl.make_eval_step(MODEL, TASKS))
  contracts.assert_trees_close(found, evaluate(whole.params, rows), atol=1e-6)
  blocks = list(training.predict_source(MODEL, whole.params, table))
  assert [len(batch.features) for batch, _ in blocks] == [64, 64, 22]
  batch, predictions = blocks[-1]
  expected = lplmtl.predict(MODEL, whole.params, batch.features)
  contracts.assert_trees_close(predictions, expected, atol=1e-6)


def test_a_source_of_other_rows_than_it_says(source, small_blocks):
  class Short(Spy):
    num_rows = 150

  table = Short(sharded.Sharded(_rows(149)))
  with pytest.raises(ValueError, match='validation must have the 150 rows'):
    _fit(source, validation=table)
  with pytest.raises(ValueError, match='validation must be an lplmtl.Batch'):
    _fit(source, validation=[1])


def test_too_few_rows_for_the_shards():
  with pytest.raises(ValueError, match='need at least 16 rows, found 12'):
    sharded.Sharded(_rows(12), num_chunks=2)


def _pieces(rows, size):
  for start in range(0, len(rows.features), size):
    yield jax.tree.map(lambda x, i=start: x[i : i + size], rows)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """1,003 rows in 32 blocks of 31 or 32, sorted by the first feature."""
  path = tmp_path_factory.mktemp('encoded') / 'rows'
  pieces = _pieces(_rows(1003), 100)
  assert data.write_rows(path, pieces, TASKS, num_blocks=4) == 1003
  return path


def test_no_written_row_is_lost_and_none_is_read_twice(folder):
  source = data.Encoded(folder, chunk_rows=250)
  assert (source.num_rows, source.num_shards) == (1003, 8)
  assert (source.num_chunks, source.chunk_rows) == (4, 248)
  rows, seen = _rows(1003), set()
  for epoch in range(12):
    chunks = [source.chunk(epoch, i, range(8)) for i in range(4)]
    whole = jax.tree.map(lambda *x: np.concatenate(x), *chunks)
    numbers = np.rint(whole.features[:, 0] * 1003).astype(int)
    assert len(np.unique(numbers)) == len(numbers) == 992
    contracts.assert_trees_equal(
      whole, jax.tree.map(lambda x, i=numbers: x[i], rows)
    )
    seen |= set(numbers.tolist())
  # A row is left out of an epoch in one of 90 cases, never in 12 epochs.
  assert seen == set(range(1003))
  pieces = list(source.scan(range(8)))
  every = np.concatenate([piece.features[:, 0] for piece in pieces])
  np.testing.assert_array_equal(np.sort(every), rows.features[:, 0])
  some = source.chunk(0, 1, [3, 6]).features
  chunk = source.chunk(0, 1, range(8)).features
  np.testing.assert_array_equal(
    some, np.concatenate([chunk[93:124], chunk[186:217]])
  )


def test_rows_that_were_sorted_come_out_mixed(folder):
  """Each chunk is spread over the file like a random sample, or better."""
  source = data.Encoded(folder, chunk_rows=250)
  for number in range(4):
    place = np.sort(source.chunk(0, number, range(8)).features[:, 0])
    gap = np.abs(place - (np.arange(248) + 0.5) / 248).max()
    # Kolmogorov and Smirnov: a random sample exceeds this in 1 of 100 cases.
    assert gap < 1.63 / np.sqrt(248)
    assert abs(place.mean() - 0.5) < 0.02


def test_chunks_of_other_sizes(folder):
  for rows, expected in ((1, (4, 248)), (500, (2, 496)), (10**6, (1, 992))):
    source = data.Encoded(folder, chunk_rows=rows)
    assert (source.num_chunks, source.chunk_rows) == expected
  prints = {data.Encoded(folder, seed=seed).fingerprint for seed in (0, 0, 1)}
  assert len(prints) == 2


def test_fit_reads_a_folder(folder):
  result = _fit(data.Encoded(folder, chunk_rows=250), num_epochs=1)
  assert result.steps_taken == 4 * (248 // BATCH)


def test_two_chunks_are_in_memory(folder):
  """Those before are let go at once, not when garbage is collected."""
  arrays, counts = [], []

  class Counted(Spy):
    def chunk(self, *place):
      counts.append(sum(array() is not None for array in arrays))
      batch = super().chunk(*place)
      arrays.append(weakref.ref(batch.features))
      return batch

  gc.disable()
  try:
    _fit(Counted(data.Encoded(folder, chunk_rows=250)))
  finally:
    gc.enable()
  assert len(counts) == 8 and max(counts) <= 1  # beside the one that is read


def test_damage_is_named(folder, tmp_path):
  copy = tmp_path / 'rows'
  shutil.copytree(folder, copy)
  source = data.Encoded(copy)
  source.verify()
  block = copy / '002_0001.rows'
  content = block.read_bytes()
  block.write_bytes(content[:-1] + b'?')
  with pytest.raises(ValueError, match=f'{block} has changed since'):
    source.chunk(0, 0, range(8))
  with pytest.raises(ValueError, match=f'{block} has changed since'):
    source.verify()
  source.chunk(0, 0, [0, 1])
  block.write_bytes(content[:-1])
  with pytest.raises(ValueError, match=f'{block} must have .* bytes, found'):
    data.Encoded(copy)
  block.unlink()
  with pytest.raises(ValueError, match=f'{block} cannot be read: No such file'):
    source.chunk(0, 0, range(8))
  (copy / 'rows.json').write_text('{"form": []}')
  with pytest.raises(ValueError, match='rows.json is damaged'):
    data.Encoded(copy)
  with pytest.raises(ValueError, match='holds no rows that'):
    data.Encoded(tmp_path)


def _with(part, place, value):
  rows = _rows(40)
  leaf = rows.features if part == 'features' else rows.labels[part]
  leaf[place] = value
  return rows


@pytest.mark.parametrize(
  ('pieces', 'message'),
  [
    (list, 'no rows to write'),
    (lambda: [_rows(9), _with('features', 3, np.nan)], 'piece 1.features holds'),
    (lambda: [_with('click', 3, 7)], "'click' in piece 0 must be from 0 to 1"),
    (lambda: [_rows(9)._replace(labels={})], "piece 0: no label for task"),
    (lambda: [_rows(9), _rows(9)._replace(where=None)], 'piece 1 must be like the '
     r'first piece: expected bool\[N\] at .where..price.., found nothing'),
    (lambda: [_rows(9)._replace(where={'price': np.zeros(9, bool)})],
     r"no row has a label for the tasks \['price'\]"),
  ],
)  # fmt: skip
def test_rows_that_cannot_be_written_leave_nothing(pieces, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    data.write_rows(tmp_path / 'rows', pieces(), TASKS)
  assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_only_if_asked_to(tmp_path):
  path = tmp_path / 'rows'
  path.mkdir()
  assert data.write_rows(path, [_rows(9)], num_blocks=1) == 9
  with pytest.raises(ValueError, match='already holds rows: .*overwrite=True'):
    data.write_rows(path, [_rows(8)], num_blocks=1)
  with pytest.raises(ValueError, match='no rows to write'):
    data.write_rows(path, [], overwrite=True)
  assert data.Encoded(path).num_rows == 9
  left = tmp_path / '.rows.0123456789abcdef.part'  # by a kill
  left.mkdir()
  (left / 'LPLMTL').write_text('lplmtl part\n')
  assert data.write_rows(path, [_rows(8)], num_blocks=1, overwrite=True) == 8
  assert [*tmp_path.iterdir()] == [path]
  (path / 'mine.txt').write_text('not yours')
  for folder in (path, tmp_path):
    with pytest.raises(
      ValueError, match='is no folder of rows that write_rows'
    ):
      data.RowWriter(folder, overwrite=True)
