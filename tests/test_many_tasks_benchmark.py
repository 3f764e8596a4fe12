"""experiments.many_tasks: its figures, its table, and what it refuses."""

import json

import pytest

from experiments.benchmark import many_tasks
from experiments.launcher.errors import InputError


def test_figures_and_their_file(tmp_path, capsys):
  path = tmp_path / 'figures.json'
  many_tasks.measure(
    many_tasks.Asked(('shared_bottom',), ('equal',), (2, 3), 2, path)
  )
  two, three = json.loads(path.read_text())['measured']
  assert (two['num_tasks'], three['num_tasks']) == (2, 3)
  assert min(two['init'], two['lower'], two['compile']) > 0
  # A tower more: at least a product of 256 x 128 x 32, forward and back.
  assert three['gflop'] - two['gflop'] > 3 * 2 * 256 * 128 * 32 / 1e9
  assert len(two['step_ms']) == 2
  assert 'shared_bottom' in capsys.readouterr().out


@pytest.mark.parametrize('text', ('0', 'x', '10001', '-1', ''))
def test_numbers_of_tasks_that_are_refused(text):
  with pytest.raises(InputError, match='--task_counts must be whole numbers'):
    many_tasks.counts(['2', text])


def test_names_are_checked_before_anything_is_measured():
  with pytest.raises(InputError, match='nothing'):
    many_tasks.measure(many_tasks.Asked(('mmoe',), ('nothing',), (2,), 2, None))
