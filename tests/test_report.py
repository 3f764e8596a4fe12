"""One page from several runs."""

import functools
import json
import re
import shutil

import pytest

from experiments import census, report
from experiments.comparison import folder as compare_folder
from experiments.launcher import drawing
from experiments.launcher.options import Config
from experiments.reporting import page
from tests import launching

pytestmark = pytest.mark.slow  # trains, and draws many pictures
launch = functools.partial(launching.launch, report.main)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Returns a folder with two finished runs, the second a copy."""
  folder = tmp_path_factory.mktemp('report')
  census.run(
    Config(
      dataset='sample', num_rows=1500, epochs=2, architecture='mmoe', num_bins=4,
      expert_widths=((4,),), num_experts=2, tower_widths=(), num_seeds=2,
      optimizer='sgd', out_dir=str(folder / 'mmoe'),
    )
  )  # fmt: skip
  shutil.copytree(folder / 'mmoe', folder / 'other')
  return folder


def _comparison(runs, change=lambda content: None):
  """Returns a comparison on the same data."""
  results = json.loads((runs / 'mmoe' / 'results.json').read_text())
  interval = {
    'estimate': 0.001,
    'low': -0.001,
    'high': 0.003,
    'std_error': 0.001,
  }
  row = {
    **results, 'name': 'mmoe', 'setting': {'income': 'x', 'marital': 'x'},
    'fits': 3, 'verdict': 'undecided', 'mtl_gain': 0.1, 'latency': 1e-5,
    'difference': dict.fromkeys(('income', 'marital'), interval),
    'fitted': {},
  }  # fmt: skip
  base = {**row, 'name': 'ple', 'verdict': 'baseline', 'difference': None}
  content = {
    'title': 'income, marital; sample', 'tasks': ['income', 'marital'],
    'baseline': 'ple', 'single': 'single_task', 'margin': 0.002, 'num_seeds': 2,
    'tuning_seeds': 1, 'settings': ['x'], 'tree_settings': [],
    'rows': [base, row],
    **{k: results[k] for k in ('config', 'data', 'command', 'commit')},
  }  # fmt: skip
  change(content)
  return content


def test_a_page(runs, tmp_path, capsys):
  folder = tmp_path / 'page'
  folder.mkdir()
  (folder / 'gates_7.png').write_bytes(b'PNG of an older page' + drawing.MARK)
  (tmp_path / 'c').mkdir()
  (tmp_path / 'c' / compare_folder.JSON).write_text(
    json.dumps(_comparison(runs))
  )
  paths = [runs / 'mmoe', runs / 'other' / 'results.json', tmp_path / 'c']
  assert launch(*map(str, paths), f'--report_dir={folder}') == 0
  names = {path.name for path in folder.iterdir()}
  assert names == {
    'report.html', 'report.md', 'learning.png', 'calibration.png',
    'gates_0.png', 'gates_1.png', 'differences_0.png', 'sizes_0.png',
  }  # fmt: skip
  text = (folder / 'report.md').read_text()
  auc = json.loads((runs / 'mmoe' / 'results.json').read_text())
  auc = auc['test']['income']['auc']['mean']
  assert f'{auc:.4f}' in text and '| other |' in text
  for name in re.findall(r'\]\((\S+\.png)\)', text):
    assert (folder / name).read_bytes().startswith(b'\x89PNG')
  page_text = (folder / 'report.html').read_text()
  assert page_text.count('data:image/png;base64,') == 6
  # The page loads nothing from elsewhere.
  assert not re.search(r'(src|href)="(?!data:)', page_text)
  assert page_text.count('<table>') == page_text.count('</table>') == 6


def test_a_run_without_its_history(runs, tmp_path):
  shutil.copytree(runs / 'mmoe', tmp_path / 'old')
  (tmp_path / 'old' / 'history.jsonl').unlink()
  written = page.make([tmp_path / 'old'], tmp_path / 'page')
  assert 'learning.png' not in {path.name for path in written}
  assert 'report.html' in {path.name for path in written}


def test_names_in_the_page_are_escaped(runs, tmp_path):
  shutil.copytree(runs / 'mmoe', tmp_path / '<b>')
  page.make([tmp_path / '<b>'], tmp_path / 'page')
  text = (tmp_path / 'page' / 'report.html').read_text()
  assert '<b>' not in text and '&lt;b&gt;' in text


def _spoil(runs, tmp_path, change):
  shutil.copytree(runs / 'mmoe', tmp_path / 'spoiled')
  path = tmp_path / 'spoiled' / 'results.json'
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
  return path


def test_runs_of_different_data(runs, tmp_path, capsys):
  other = _spoil(
    runs, tmp_path, lambda c: c['data'].update(statement='other rows')
  )
  folder = tmp_path / 'page'
  arguments = (str(runs / 'mmoe'), str(other), f'--report_dir={folder}')
  assert launch(*arguments) == 1
  last = capsys.readouterr().err.strip()
  assert 'different data' in last and "'other rows'" in last
  assert len(last.splitlines()) == 1 and not folder.exists()


def test_mistakes(runs, tmp_path, capsys):
  def complaint(*arguments):
    assert (
      launch(*map(str, arguments), f'--report_dir={tmp_path / "page"}') == 1
    )
    found = capsys.readouterr().err.strip()
    assert found.startswith('error: ') and len(found.splitlines()) == 1
    return found

  assert 'nothing to report' in complaint()
  assert 'is not the folder of a finished run' in complaint(tmp_path)
  assert 'named twice' in complaint(
    runs / 'mmoe', runs / 'mmoe' / 'results.json'
  )
  spoiled = _spoil(runs, tmp_path, lambda c: c.pop('loss_weights'))
  assert "has no 'loss_weights'" in complaint(spoiled)
  content = json.loads((runs / 'mmoe' / 'results.json').read_text())
  spoiled.write_text(json.dumps({**content, 'test': {}}))
  assert 'is not what this release writes' in complaint(spoiled)
  assert not list((tmp_path / 'page').iterdir())
  spoiled.write_text('{')
  assert 'is not what this release writes' in complaint(spoiled)
  (tmp_path / 'file').write_text('')
  arguments = (str(runs / 'mmoe'), f'--report_dir={tmp_path / "file"}')
  assert launch(*arguments) == 1
  assert 'cannot write to --report_dir' in capsys.readouterr().err
