"""The published comparisons: what is committed is what `compare` writes."""

import json
import pathlib
import shutil

import pytest

from experiments import compare
from experiments.comparison import publish, tables
from experiments.frontier import outputs
from experiments.launcher.errors import InputError
from tests import launching

RESULTS = pathlib.Path(__file__).parent.parent / 'experiments' / 'results'
FIGURES = sorted(RESULTS.glob('*.json'))
TEXTS = sorted(RESULTS.glob('*.md'))


@pytest.mark.parametrize('path', TEXTS, ids=lambda p: p.name)
def test_tables_are_those_of_the_figures(path):
  """`python -m experiments.compare --publish_to=experiments/results`."""
  text = path.read_text(encoding='utf-8')
  assert '| ---: |' in text
  assert publish.render(text, path, outputs.KINDS) == text


@pytest.mark.parametrize('path', FIGURES, ids=lambda p: p.name)
def test_csv_holds_the_same_figures(path):
  results = json.loads(path.read_text(encoding='utf-8'))
  is_frontier = 'families' in results
  made = outputs.csv(results) if is_frontier else tables.csv(results)
  assert made == path.with_suffix('.csv').read_text()
  kinds = ('frontier', 'roads') if is_frontier else ('quality',)
  marks = [f'<!-- {path.stem}: {kind} -->' for kind in kinds]
  assert any(mark in text.read_text() for text in TEXTS for mark in marks)


@pytest.fixture
def published(tmp_path):
  """A folder to which a finished comparison has just been published."""
  name, target = 'compare_inputs', tmp_path / 'results'
  source = tmp_path / name
  source.mkdir()
  results = json.loads((RESULTS / f'{name}.json').read_text())
  program, *given = results['command']
  results['command'] = [f'/a/{program}', *given, '--publish_to=/b/results']
  for row in results['rows']:
    row['gates'] = ['long']
    for metrics in row['test'].values():
      for values in metrics.values():
        values['per_seed'] = [0.5]
  (source / 'comparison.json').write_text(json.dumps(results))
  (source / 'comparison.csv').write_text(tables.csv(results))
  shutil.copy(RESULTS / f'{name}_differences.png', source / 'differences.png')
  assert f'<!-- {name}: quality -->' in publish.add(source, target)
  return target


def test_what_is_published(published):
  files = {path.name for path in published.iterdir()}
  assert files == {
    f'compare_inputs{end}' for end in ('.json', '.csv', '_differences.png')
  }
  for name in files:
    assert (published / name).read_bytes() == (RESULTS / name).read_bytes()


def test_tables_are_made_in_their_place(published):
  path = published / 'README.md'
  path.write_text(
    'before\n<!-- compare_inputs: cost -->\nold\n<!-- end -->\nafter\n'
  )
  assert launching.launch(compare.main, f'--publish_to={published}') == 0
  first, mark, title, *_, end, last, _ = path.read_text().split('\n')
  assert (first, last) == ('before', 'after') and title.startswith('Cost, ')
  assert mark == '<!-- compare_inputs: cost -->' and end == '<!-- end -->'
  assert '| sple num_bins=0 |' in path.read_text()


@pytest.mark.parametrize('mark', ['compare_inputs: price', 'nothing: cost'])
def test_a_table_that_cannot_be_made(mark, published):
  (published / 'README.md').write_text(f'<!-- {mark} -->\n<!-- end -->\n')
  with pytest.raises(InputError, match=f'README.*{mark}.* quality, cost'):
    publish.refresh(published)


def test_a_comparison_that_is_not_there(tmp_path):
  with pytest.raises(InputError, match=r'publish_to.*comparison\.json'):
    publish.add(tmp_path, tmp_path / 'results')
