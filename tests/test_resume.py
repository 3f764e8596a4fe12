"""Interrupted runs: bit-identical results, or one line about damaged files."""

import json
import shutil
import threading
import types

import jax
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, resume
from lplmtl.storage import files, pytrees
from lplmtl.training import keepers, progress
from tests import contracts, fuzz_checkpoints


@pytest.fixture(scope='module')
def whole():
  return fuzz_checkpoints.fit()


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
  """A folder with two checkpoints, of steps 23 and 26."""
  folder = tmp_path_factory.mktemp('kept') / 'run'
  fuzz_checkpoints.keep(folder)
  return folder


@pytest.mark.slow
def test_bit_for_bit(whole, tmp_path):
  """Interrupted within epochs, and after seeds have stopped early."""
  assert not whole.history[-1]['active'].all(), 'choose another setting'
  found = contracts.fit_in_pieces(
    fuzz_checkpoints.fit, tmp_path / 'run', (1, 2, 7, 9), every_steps=3
  )
  assert 0 < found.steps_taken < whole.steps_taken
  for name in ('params', 'best_epoch', 'history', 'num_skipped'):
    contracts.assert_trees_equal(getattr(found, name), getattr(whole, name))
  for name in ('step', 'params', 'opt_state', 'balancer_state'):
    contracts.assert_trees_equal(
      getattr(found.state, name), getattr(whole.state, name)
    )
  np.testing.assert_array_equal(
    jax.random.key_data(found.state.key), jax.random.key_data(whole.state.key)
  )
  # Once more when the run is over: no step is left.
  with resume.Checkpoints(tmp_path / 'run') as keeper:
    again = fuzz_checkpoints.fit(keeper)
  assert again.steps_taken == 0
  contracts.assert_trees_equal(again.params, whole.params)


@pytest.mark.slow
def test_one_key_and_no_validation(tmp_path):
  """Random keys in the balancer's state, and skipped steps, are saved too."""
  data = fuzz_checkpoints.make_data(160, 0)
  data.labels['apple'][7] = 3e38
  changes = {
    'key': jax.random.key(3), 'balancer': balancing.pcgrad(), 'data': data,
    'validation': None, 'patience': None, 'num_epochs': 3, 'skip_nonfinite': 9,
  }  # fmt: skip
  plain = fuzz_checkpoints.fit(**changes)
  found = contracts.fit_in_pieces(
    lambda keeper: fuzz_checkpoints.fit(keeper, **changes),
    tmp_path / 'run', (3,), every_steps=4,
  )  # fmt: skip
  assert plain.num_skipped == found.num_skipped == 3
  contracts.assert_trees_equal(found.params, plain.params)
  contracts.assert_trees_equal(found.history, plain.history)


@pytest.mark.slow
def test_damaged_checkpoints(tmp_path, capfd):
  """`python -m tests.fuzz_checkpoints` makes thousands."""
  found = fuzz_checkpoints.run(60, 0, tmp_path)
  assert set(found) == {
    'the one before', 'none is intact', 'the same through a link',
    'refused, as not ours', 'refused, as forged', 'taken, as forged',
    'model refused', 'model taken',
  }  # fmt: skip
  assert capfd.readouterr().err == ''


def _checkpoints(folder, notes=None, **run):
  run = {'rate': 0.1, 'data': {'train': 'a'}, **run}
  notes = [] if notes is None else notes
  return resume.Checkpoints(folder, run=run, on_note=notes.append)


def test_none_is_intact(kept, tmp_path):
  shutil.copytree(kept, tmp_path / 'run')
  for file in (tmp_path / 'run').rglob('manifest.ocdbt'):
    file.write_bytes(b'')
  with pytest.raises(pytrees.CheckpointError, match='is intact') as error:
    _checkpoints(tmp_path / 'run').restore(fuzz_checkpoints.like())
  assert '\n' not in str(error.value)
  assert (
    _checkpoints(tmp_path / 'nothing').restore(fuzz_checkpoints.like()) is None
  )


@pytest.mark.parametrize(
  'run, complaint',
  [
    ({'rate': 0.2}, r'differs in rate \(0.1, now 0.2\): choose'),
    ({'data': {'train': 'b'}}, r'data.train \(a, now b\)'),
    ({'more': 1}, r'more \(None, now 1\)'),
  ],
)
def test_another_run_is_refused(run, complaint, kept):
  with pytest.raises(pytrees.CheckpointError, match=complaint):
    _checkpoints(kept, **run).restore(fuzz_checkpoints.like())


def test_another_model_is_refused(kept):
  like = fuzz_checkpoints.like()
  state = like.state.params
  state['bottom']['layer_0']['bias'] = np.zeros((3, 7), np.float32)
  with pytest.raises(
    pytrees.CheckpointError,
    match=r'expected float32\(3, 7\) at .*bias.*, found float32\(3, 6\)',
  ):
    _checkpoints(kept).restore(like)
  state['other'] = state.pop('bottom')
  with pytest.raises(
    pytrees.CheckpointError, match=r'float32.* at .*other.*, found nothing$'
  ):
    _checkpoints(kept).restore(like)


@pytest.mark.parametrize(
  'change, complaint',
  [
    ({'key': jax.random.split(jax.random.key(1), 3)}, 'another random key'),
    ({'optimizer': optax.sgd(0.1)}, 'it holds .* arrays too many'),
    ({'model': lplmtl.MMoE(fuzz_checkpoints.TASKS)}, 'does not fit this run'),
    ({'batch_size': 20}, r'expected float32\(3, 8, 2\) at .*losses'),
  ],
)
def test_other_arguments_of_fit_are_refused(change, complaint, kept):
  with (
    pytest.raises(resume.RestoreError, match=complaint),
    _checkpoints(kept) as keeper,
  ):
    fuzz_checkpoints.fit(keeper, **change)


def test_one_keeper_serves_one_fit(tmp_path):
  like = fuzz_checkpoints.like()
  with resume.Checkpoints(tmp_path / 'run') as keeper:
    assert keeper.restore(like) is None
    with pytest.raises(ValueError, match='keeper serves one call of fit'):
      fuzz_checkpoints.fit(keeper)
  with resume.Checkpoints(tmp_path / 'run') as closed:
    pass
  with pytest.raises(ValueError, match='while it is open'):
    fuzz_checkpoints.fit(closed)


def test_what_was_passed_over_does_not_count_as_kept(kept, tmp_path):
  """A damaged checkpoint of a later step must not push out new ones."""
  folder = tmp_path / 'run'
  shutil.copytree(kept, folder)
  (folder / 'step_0000000026' / 'SHA256SUMS').write_text('')
  run = {'rate': 0.1, 'data': {'train': 'a'}}
  with (
    pytest.raises(resume.Interrupted),
    contracts.Interrupting(
      folder, 1, every_steps=1, num_kept=1, run=run, on_note=lambda _: None
    ) as keeper,
  ):
    fuzz_checkpoints.fit(keeper)
  assert keeper.steps() == [24]
  like = fuzz_checkpoints.like()
  assert _checkpoints(folder).restore(like).total_steps == 24


def test_what_cannot_be_read_is_passed_over(kept, tmp_path, monkeypatch):
  folder = tmp_path / 'run'
  shutil.copytree(kept, folder)
  sha256 = files.sha256

  def refuse(path):
    if 'step_0000000026' in str(path):
      raise PermissionError(13, 'Permission denied')
    return sha256(path)

  monkeypatch.setattr(files, 'sha256', refuse)
  notes = []
  found = _checkpoints(folder, notes).restore(fuzz_checkpoints.like())
  assert found.total_steps == 23
  assert 'cannot be read: Permission denied' in notes[0]


def test_the_end_of_training_is_saved_if_it_took_long(tmp_path, monkeypatch):
  """What follows training, such as scoring, may be interrupted too."""
  last = fuzz_checkpoints.like()._replace(step=7)
  for seconds, saved in ((1e9, []), (0.0, [7])):
    monkeypatch.setattr(resume, '_WORTH_SAVING', seconds)
    with resume.Checkpoints(tmp_path / str(seconds)) as keeper:
      keeper.save_if_due(last)
    assert keeper.steps() == saved


def test_only_checkpoints_are_removed(tmp_path):
  keeper = resume.Checkpoints(tmp_path)
  (tmp_path / 'step_0000000003').mkdir()
  (tmp_path / 'thesis.txt').write_text('mine')
  keeper.clear()
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.txt']


def test_what_broke_off_is_removed(kept, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(kept, folder)
  part = folder / f'.step_0000000030.{"0f" * 8}.part'
  part.mkdir()
  (part / 'LPLMTL').write_text('lplmtl part\n')
  (part / 'new.orbax-checkpoint-tmp' / 'd').mkdir(parents=True)
  assert _checkpoints(folder).restore(fuzz_checkpoints.like()).total_steps == 26
  assert sorted(p.name for p in folder.iterdir()) == [
    'step_0000000023',
    'step_0000000026',
  ]


def test_when_it_is_saved(tmp_path, monkeypatch):
  """By steps, by time, and how far `fit` goes between pauses."""
  clock = [0.0]
  monkeypatch.setattr('time.monotonic', lambda: clock[0])
  keeper = resume.Checkpoints(tmp_path, every_steps=30, every_seconds=60)
  start = fuzz_checkpoints.like()._replace(
    metrics={'losses': np.zeros((3, 1000, 2), np.float32)}
  )
  assert keeper.next_pause(start) == 30
  assert keeper.next_pause(start._replace(step=30)) == 60
  by_time = resume.Checkpoints(tmp_path, every_seconds=60)
  assert by_time.next_pause(start) == 50  # no step has been timed yet
  clock[0] = 0.1
  assert by_time.next_pause(start._replace(step=50)) == 550  # 500 per second
  saved = []
  monkeypatch.setattr(
    resume.Checkpoints, 'save', lambda self, now: saved.append(now.step)
  )
  for step in (30, 31, 60):
    keeper.save_if_due(start._replace(step=step))
  by_time.save_if_due(start._replace(step=1))
  clock[0] = 70.0
  by_time.save_if_due(start._replace(step=2))
  assert saved == [30, 60, 2]


def test_former_names_of_keepers(tmp_path):
  keeper = resume.Checkpoints(tmp_path, every_steps=3)
  start = fuzz_checkpoints.like()
  with pytest.warns(DeprecationWarning, match='next_pause'):
    assert keeper.until(start) == 3
  with pytest.warns(DeprecationWarning, match='save_if_due'):
    keeper.look(start._replace(step=1))
  own = types.SimpleNamespace(restore=len, until=abs, look=repr)
  with pytest.warns(DeprecationWarning, match='save_if_due'):
    new = keepers.current_keeper(own)
  assert (new.restore, new.next_pause, new.save_if_due) == (len, abs, repr)
  for current in (keeper, resume.Checkpoints, None):
    assert keepers.current_keeper(current) is current


def test_a_save_that_fails_ends_the_run(kept, tmp_path, monkeypatch):
  """And leaves what was kept before."""
  folder = tmp_path / 'run'
  shutil.copytree(kept, folder)
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    'shutil.disk_usage', lambda path: usage._replace(free=1000)
  )
  run = {'rate': 0.1, 'data': {'train': 'a'}}
  with (
    pytest.raises(pytrees.CheckpointError, match='no space left: .* MB needed'),
    resume.Checkpoints(folder, every_steps=3, run=run) as keeper,
  ):
    fuzz_checkpoints.fit(keeper)
  assert keeper.steps() == [23, 26]
  monkeypatch.undo()
  assert _checkpoints(folder).restore(fuzz_checkpoints.like()).total_steps == 26


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(pytrees.CheckpointError, match='cannot read the folder'),
    resume.Checkpoints(tmp_path / 'file' / 'run', every_steps=3) as keeper,
  ):
    fuzz_checkpoints.fit(keeper)


@pytest.mark.parametrize(
  'options, complaint',
  [
    ({'num_kept': 0}, 'num_kept at least 1 .* found 0, 60.0 and 0'),
    ({'num_kept': '2'}, "found 0, 60.0 and '2'"),
    ({'every_steps': -1}, 'found -1'),
    ({'every_steps': 2.5}, 'found 2.5'),
    ({'every_seconds': float('nan')}, 'found 0, nan and 2'),
    ({'every_seconds': 'a'}, "found 0, 'a' and 2"),
    ({'every_seconds': None}, 'found 0, None and 2'),
    ({'stop': True}, 'stop must be a threading.Event, found True'),
    ({'stop': False}, 'stop must be a threading.Event, found False'),
    ({'stop': threading.Event}, 'stop must be a threading.Event, found <class'),
    ({'on_note': 3}, 'on_note must be a function of a text, found 3'),
    ({'check': 3}, 'check must be a function, found 3'),
    ({'directory': None}, 'a string or a pathlib.Path, found None'),
    ({'run': 'abc'}, "must be a dict of JSON data.*found 'abc'"),
    ({'run': {'rate': np.float32(1)}}, 'must be a dict of JSON data.*float32'),
    ({'directory': 'a[1]'}, 'brackets'),
  ],
)
def test_bad_arguments(options, complaint):
  with pytest.raises(ValueError, match=complaint):
    resume.Checkpoints(**{'directory': 'a', **options})


def test_limits_may_be_numpy_numbers(tmp_path):
  keeper = resume.Checkpoints(
    tmp_path, every_steps=np.uint8(200), num_kept=np.int64(3),
    every_seconds=np.float32(9),
  )  # fmt: skip
  assert type(keeper.every_steps) is type(keeper.num_kept) is int


def test_history_survives_json(whole):
  """Bit for bit, NaN included."""
  history = whole.history
  history[0]['validation']['zebra']['auc'][0] = np.nan
  text = json.dumps(progress.to_json(history))
  found = [progress.from_json(record) for record in json.loads(text)]
  contracts.assert_trees_equal(found, history)


def test_stop_is_an_event(tmp_path):
  """Whoever holds it may stop the run, from any thread.

  The progress is kept first, and told of afterwards.
  """
  stop = threading.Event()
  kept = []
  stop.set()
  with (
    pytest.raises(resume.Interrupted),
    resume.Checkpoints(tmp_path / 'run', stop=stop) as keeper,
  ):
    fuzz_checkpoints.fit(
      keeper, on_epoch=lambda record: kept.append(keeper.steps())
    )
  assert len(keeper.steps()) == 1 and kept == [keeper.steps()]
  keeper.clear()
  assert not (tmp_path / 'run').exists()
