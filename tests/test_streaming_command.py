"""experiments.tabular on a table that is read in chunks."""

import json
import pathlib
import types

import numpy as np
import pytest

from experiments import tabular
from experiments.datasets.tables import (
  encoded_rows,
  outputs,
  sampling,
  streamed,
)
from experiments.launcher import errors, finishing, options, run_folder
from lplmtl import columns as raw
from lplmtl import data
from lplmtl import tabular as tabular_library
from lplmtl.data import encoded
from lplmtl.types import Batch
from tests.launching import launch
from tests.test_tabular_command import TARGETS, TINY

pyarrow = pytest.importorskip('pyarrow')
parquet = pytest.importorskip('pyarrow.parquet')
STREAM = '--stream=always'
# Without states of a balancer and an optimiser it compiles faster.
QUICK = (*TINY, '--balancer=equal', '--optimizer=sgd')


def _table(path, num_rows, seed=0):
  columns = data.customers(num_rows, seed=seed)
  table = pyarrow.table({name: list(x) for name, x in columns.items()})
  parquet.write_table(table, path, row_group_size=256)
  return path


def _tabular(*arguments):
  return launch(tabular.main, *arguments)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """1,500 rows in two files."""
  path = tmp_path_factory.mktemp('streamed')
  (path / 'files').mkdir()
  for i, n in enumerate((1000, 500)):
    _table(path / 'files' / f'{i}.parquet', n, seed=i)
  return path


@pytest.fixture(scope='module')
def finished(folder):
  run = folder / 'run'
  given = (f'--data={folder}/files/*.parquet', TARGETS, *QUICK, STREAM)
  assert _tabular(*given, f'--out_dir={run}') == 0
  return run, given


def test_chunks_of_large_tables_have_no_more_rows():
  for num_rows in (10**6, 3 * 10**7, 10**8, 2**28):
    count = encoded_rows._num_blocks(num_rows)
    size, step = encoded.plan(num_rows, data.NUM_SHARDS, count)
    rows = size * step * data.NUM_SHARDS
    assert encoded.CHUNK_ROWS / 2 < rows <= encoded.CHUNK_ROWS
  assert encoded_rows._num_blocks(10**9) == encoded_rows._num_blocks(2**28)
  assert encoded_rows._num_blocks(9000) == 1


@pytest.mark.slow
def test_a_table_is_trained_on_in_chunks(finished, capsys, tmp_path):
  run, given = finished
  results = json.loads((run / 'results.json').read_text())
  rows = results['data']['rows']
  assert sum(rows.values()) == 1500
  assert 100 < rows['test'] < 200 and 100 < rows['validation'] < 200
  labelled = results['data']['labelled']
  assert labelled['train']['churn'] < rows['train']
  assert results['data']['unseen'].keys() == {'validation', 'test'}
  assert 0 <= results['test']['churn']['auc']['mean'] <= 1
  assert results['outcomes']['segment']['counts']
  schema = json.loads((run / 'schema.json').read_text())
  assert schema['targets']['segment']['classes'] == [
    'bargain', 'business', 'loyal', 'new',
  ]  # fmt: skip
  assert not (run / 'rows').exists()
  # The same command again finds the run, and leaves no rows.
  assert _tabular(*given, f'--out_dir={run}') == 0
  assert 'finished' in capsys.readouterr().out
  assert not (run / 'rows').exists()
  # In memory, it is another run.
  assert _tabular(*given[:-1], f'--out_dir={run}') == 1
  assert 'holds another run' in capsys.readouterr().err
  # Of files that have changed, the first is named.
  _table(tmp_path / '0.parquet', 1000)
  _table(tmp_path / '2.parquet', 500, seed=2)
  changed = f'--data={tmp_path}/*.parquet', *given[1:]
  assert _tabular(*changed, f'--out_dir={run}') == 1
  error = capsys.readouterr().err
  assert '*.parquet (1.parquet is missing, and 1 other differs):' in error


@pytest.mark.slow
def test_its_model_predicts(finished, folder, capsys):
  run, _ = finished
  new = _table(folder / 'new.parquet', 40, seed=9)
  scores = folder / 'scores.csv'
  found = _tabular(f'--data={new}', f'--model={run}', f'--predict_to={scores}')
  assert found == 0, capsys.readouterr().err
  assert len(scores.read_text().splitlines()) == 41


@pytest.mark.slow
def test_its_model_is_scored_on_its_own_test_rows(finished, folder, capsys):
  run, given = finished
  results = json.loads((run / 'results.json').read_text())
  capsys.readouterr()
  assert _tabular(given[0], '--eval_only', f'--out_dir={run}') == 0
  out = capsys.readouterr().out
  assert f'{results["test"]["churn"]["auc"]["mean"]:.4f}' in out
  assert 'other than these' not in out
  assert not (run / 'rows').exists()
  # Rows of another table are all scored, in memory.
  other = f'--data={folder}/files/0.parquet'
  assert _tabular(other, '--eval_only', f'--out_dir={run}') == 0
  assert 'other than these' in capsys.readouterr().out


def _streamed(folder, **changes):
  config = options.Config(
    data=str(folder / 'files'), targets=('churn',), stream='always',
    out_dir=str(folder / 'other'), **changes,
  )  # fmt: skip
  return streamed.Streamed(config, (), ['churn'])


def test_each_row_has_one_split(folder):
  def rows_of(table):
    return [
      (block.file, block.first + row, split)
      for block in table.blocks()
      for split, rows in block.rows.items()
      for row in rows.tolist()
    ]

  table = _streamed(folder)
  seen = rows_of(table)
  every = [('0.parquet', i) for i in range(1000)]
  every += [('1.parquet', i) for i in range(500)]
  assert sorted(x[:2] for x in seen) == every
  assert rows_of(_streamed(folder)) == seen


def test_rows_are_written_once_and_read_again(folder, monkeypatch, capsys):
  run = folder / 'rows_of'
  given = [
    f'--data={folder}/files', '--targets=churn', *QUICK, STREAM,
    f'--out_dir={run}',
  ]  # fmt: skip

  def stop(*arguments, **options):
    raise errors.InputError('stopped')

  with monkeypatch.context() as patch:
    patch.setattr('experiments.launcher.run._train', stop)
    assert _tabular(*given) == 1
  note = run / 'rows' / run_folder.ROWS_NOTE
  written = note.stat().st_mtime_ns
  assert {path.name for path in note.parent.iterdir()} == {
    'train', 'validation', 'test', run_folder.ROWS_NOTE,
  }  # fmt: skip
  with monkeypatch.context() as patch:
    patch.setattr('experiments.launcher.run._train', stop)
    assert _tabular(*given) == 1
    assert note.stat().st_mtime_ns == written
    assert _tabular(*given, '--num_bins=0', '--overwrite') == 1
  assert note.stat().st_mtime_ns != written
  # Test rows would be read after all epochs: a resumed run compares them first.
  block = run / 'rows' / 'test' / '007_0000.rows'
  content = block.read_bytes()
  block.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  capsys.readouterr()
  with monkeypatch.context() as patch:
    patch.setattr('experiments.launcher.run._train', stop)
    assert _tabular(*given, '--num_bins=0') == 1
  assert f'error: {block} has changed since' in capsys.readouterr().err
  block.write_bytes(content)
  block = run / 'rows' / 'train' / '007_0000.rows'
  content = block.read_bytes()
  block.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  capsys.readouterr()
  assert _tabular(*given, '--num_bins=0') == 1
  error = capsys.readouterr().err
  assert f'{block} has changed since' in error and error.count('\n') == 1
  assert f'remove {run}/rows and repeat the command' in error
  block.unlink()
  assert _tabular(*given, '--num_bins=0') == 1
  error = capsys.readouterr().err
  assert error.startswith(f'error: {block} cannot be read: No such file')
  assert f'remove {run}/rows' in error and error.count('\n') == 1
  (run / 'rows' / 'mine.txt').write_text('not yours')
  assert _tabular(*given, '--overwrite') == 1
  assert (run / 'rows' / 'mine.txt').exists()


def test_test_rows_that_cannot_be_read_are_named(monkeypatch, tmp_path):
  def score(*arguments):
    raise ValueError('a block has changed')

  monkeypatch.setattr('experiments.launcher.evaluation.score', score)
  config = options.Config(out_dir=str(tmp_path))
  parts = types.SimpleNamespace(model=types.SimpleNamespace(tasks=()))
  fitted = types.SimpleNamespace(params={}, history=[], best_epoch=[])
  batch = Batch(np.zeros((8, 1)), {})
  for rows, kind in (
    (data.Sharded(batch), errors.InputError),
    (batch, ValueError),
  ):
    with pytest.raises(ValueError, match='a block has changed') as caught:
      finishing._scores(config, parts, fitted, types.SimpleNamespace(test=rows))
    assert caught.type is kind


def test_all_is_checked_before_rows_are_encoded(finished, folder, capsys):
  run, given = finished
  new = folder / 'refused'

  def refused(out, *flags):
    capsys.readouterr()
    assert _tabular(*given, f'--out_dir={out}', *flags) == 1
    found = capsys.readouterr()
    assert 'encoded into' not in found.out
    assert not (out / 'rows').exists()
    return found.err

  assert 'differs in epochs' in refused(run, '--epochs=7')
  assert 'already holds a run' in refused(run, '--noresume')
  huge = '--bottom_widths=10000000', '--embed_dim=1000000'
  assert 'does not fit' in refused(new, *huge)
  assert 'unknown balancer' in refused(new, '--balancer=none')
  assert not new.exists()
  # A batch is no larger than a chunk, which is known before, too.
  assert _tabular(*given, f'--out_dir={run}', '--batch_size=8000') == 1
  assert 'batch_size (64, now 1192)' in capsys.readouterr().err
  assert _tabular(*given, f'--out_dir={run}') == 0
  assert 'encoded into' not in capsys.readouterr().out


def test_a_sample_is_fair_and_has_every_class(monkeypatch):
  monkeypatch.setattr(sampling, 'SIZE', 200)
  sample = sampling.Sample(0, ['kind'])
  for start in range(0, 5000, 100):
    number = np.arange(start, start + 100)
    kind = np.where(number == 4321, 'rare', 'usual').astype(object)
    sample.add({'number': number, 'kind': kind}, 100)
  found = sample.columns()
  assert 200 <= len(found['number']) <= 402
  assert abs(found['number'].mean() - 2500) < 300
  codes, texts = raw.texts_of('kind', found['kind'])
  assert {*texts} == {'usual', 'rare'}
  assert (found['number'][codes == texts.index('rare')] == 4321).all()


def test_what_is_printed_says_that_rows_were_drawn():
  columns = {
    'city': ['Oslo', 'Rome'] * 20,
    'paid': ['no', 'no', 'yes', 'yes'] * 10,
  }
  schema = tabular_library.infer(columns, ['paid'])
  every, _ = outputs.describe(schema, columns)
  drawn, classes = outputs.describe(schema, columns, drawn_from=5000)
  assert str(every.title) == 'Columns, as the training rows show them'
  assert str(drawn.title) == 'Columns, as 40 of 5,000 training rows show them'
  assert str(classes.title).startswith('Classes in 40 of 5,000 training rows;')
  distinct = [[str(x) for x in t.columns[3].cells] for t in (every, drawn)]
  assert distinct == [['2', '2'], ['>= 2', '>= 2']]


def test_classes_of_the_first_targets_only_are_shown():
  labels = [f't{i}' for i in range(9)]
  rows = {n: np.array(['no', 'yes'] * 20, object) for n in labels}
  rows['age'] = np.arange(40) % 7 + 0.5
  schema = tabular_library.infer(rows, labels)
  _, classes = outputs.describe(schema, rows)
  assert classes.row_count == 12
  assert (
    str(classes.caption) == 'the classes of 3 more targets are in schema.json'
  )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--time_column=signup'], 'splits at random: leave out --time_column'),
    (['--batch_size=100'], 'a multiple of 8 with --stream=always, found 100'),
  ],
)
def test_what_cannot_be_streamed(folder, flags, message, capsys):
  given = f'--data={folder}/files', TARGETS, *QUICK, STREAM, *flags
  assert _tabular(*given, f'--out_dir={folder}/none') == 1
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


@pytest.mark.parametrize('stream', ['always', 'never'])
def test_a_value_that_does_not_fit_is_named(stream, tmp_path, capsys):
  table = {'x': [1.0] * 4999 + [float('inf')], 'y': [0, 1] * 2500}
  bad = pyarrow.table(table)
  parquet.write_table(bad, tmp_path / 'b.parquet', row_group_size=700)
  parquet.write_table(bad.slice(0, 900), tmp_path / 'a.parquet')
  given = f'--data={tmp_path}', '--targets=y', *QUICK, f'--stream={stream}'
  assert _tabular(*given, f'--out_dir={tmp_path}/run') == 1
  error = capsys.readouterr().err
  assert 'error: b.parquet, row 4999 ' in error and error.count('\n') == 1
  assert not pathlib.Path(f'{tmp_path}/run/rows').exists()


def _config(folder):
  return options.Config(data=f'{folder}/*.parquet', stream='always')


def test_files_must_not_change_between_passes(tmp_path):
  path = _table(tmp_path / '0.parquet', 300)
  table = streamed.Streamed(_config(tmp_path), (), ['churn'])
  assert (
    sum(len(x) for block in table.blocks() for x in block.rows.values()) == 300
  )
  _table(path, 200)
  with pytest.raises(errors.InputError, match=r'0\.parquet changed while it'):
    list(table.blocks())


@pytest.mark.parametrize('change, complaint', [('drop', 'it lacks city'), ('more', 'it has also new')])  # fmt: skip
def test_files_must_have_the_same_columns(change, complaint, tmp_path):
  path = _table(tmp_path / '0.parquet', 20)
  table = parquet.read_table(path)
  other = (
    table.drop_columns(['city'])
    if change == 'drop'
    else table.append_column('new', table['city'])
  )
  parquet.write_table(other, tmp_path / '1.parquet')
  complaint = rf'1\.parquet must have the columns of 0\.parquet: {complaint}'
  with pytest.raises(errors.InputError, match=complaint):
    streamed.Streamed(_config(tmp_path), (), ['churn'])
