"""Balancers on the landscape of conflicting losses: distances, paths, files."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import landscape as command
from experiments.launcher.errors import InputError
from experiments.studies import descent, landscape
from lplmtl import balancing, data
from tests import launching

launch = functools.partial(launching.launch, command.main)
STUDIES = pathlib.Path(__file__).parent.parent / 'experiments/results/studies'
PUBLISHED = sorted(STUDIES.glob('landscape*.json'))
FEW = descent.Asked(('equal', 'famo'), 0.1, 150, (0.05, 0.1))


def test_no_point_betters_the_front():
  theta, losses = descent.front()
  # Where each task is best, and in between where their sum is.
  np.testing.assert_allclose(theta[[0, 700, -1], 0], [-7, 0, 7], atol=1e-9)
  assert (np.diff(losses[:, 0]) < 0).all() and (np.diff(losses[:, 1]) > 0).all()
  rng = np.random.default_rng(0)
  around = rng.uniform([-9, -10], [9, -7], size=(5_000, 2))
  # Points of the front lie .03 apart, and another one may be in the middle.
  assert descent.gap(descent.losses_at(around)).min() > -0.015
  assert abs(descent.gap(losses[::100])).max() < 1e-6
  np.testing.assert_allclose(descent.gap(losses[::100] + 3), 3, atol=1e-6)


def test_arrival_is_where_a_path_stays():
  on, off = descent.TOLERANCE / 2, descent.TOLERANCE * 2
  gaps = [[off, on, off, on], [on, on, on, on], [on, on, on, off],
          [on, np.nan, on, on], [on, on, on, np.nan]]  # fmt: skip
  found = descent.arrival(np.array(gaps))
  np.testing.assert_array_equal(found, [3, 0, np.nan, 2, np.nan])


@pytest.fixture(scope='module')
def found():
  """Short descents with a few balancers."""
  return [
    descent.descend(name, method, FEW)
    for name, method in descent.methods(FEW.methods).items()
  ]


@pytest.mark.slow
def test_a_descent_by_hand(found):
  """Equal weights: Adam on the sum of the losses, each in its unit."""
  unit, rate, start = jnp.array([0.1, 1]), FEW.rates[1], data.STARTS[3]
  optimizer = optax.adam(rate)
  slope = jax.grad(lambda theta: unit @ data.conflicting_losses(theta))

  @jax.jit
  def walk(theta):
    def step(carry, _):
      theta, state = carry
      updates, state = optimizer.update(slope(theta), state)
      return (theta + updates, state), theta + updates

    return jax.lax.scan(step, (theta, optimizer.init(theta)), length=150)[1]

  one = found[0]
  assert one.paths.shape == (2, 5, 151, 2)
  np.testing.assert_array_equal(one.paths[:, 3, 0], [start, start])
  np.testing.assert_allclose(
    one.paths[1, 3, 1:], walk(jnp.array(start)), atol=1e-3
  )


@pytest.mark.slow
def test_starts_below_reach_the_front(found):
  for one in found:
    at = descent.arrival(descent.gap(descent.losses_at(one.paths)))
    np.testing.assert_array_equal(one.steps, at)  # every step is kept
    assert np.isfinite(one.steps[1, 4]), one.name


@pytest.mark.slow
def test_files(found, tmp_path, monkeypatch, capsys):
  """The command writes a table, its figures and a picture, and redoes them."""
  by_name = {one.name: one for one in found}
  monkeypatch.setattr(descent, 'descend', lambda name, *_: by_name[name])
  stem = tmp_path / 'new' / 'few'
  arguments = (
    '--methods=equal,famo', '--first_scale=0.1', '--descent_steps=150',
    '--descent_rates=0.05,0.1', f'--landscape_to={stem}',
  )  # fmt: skip
  for _ in range(2):
    assert launch(*arguments) == 0
  assert 'famo: ' in capsys.readouterr().out
  names = {path.name for path in stem.parent.iterdir()}
  assert names == {'few.md', 'few.csv', 'few.json', 'few.png'}
  results = json.loads(stem.with_name('few.json').read_text())
  assert len(results['rows']) == len(found) * 2
  head, _, *lines = stem.with_name('few.md').read_text().splitlines()[2:6]
  assert head.startswith('| balancer | 0.05 | 0.1 | steps | -8.5, 7.5 |')
  for line, one in zip(lines, found, strict=True):
    counts = np.isfinite(one.steps).sum(axis=1)
    assert line.startswith(f'| {one.name} | {counts[0]} | {counts[1]} | ')
  rows = stem.with_name('few.csv').read_text().splitlines()
  assert len(rows) == 1 + len(found) * 2 * 5


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--methods=mgd'], 'mgda'),
    (['--descent_rates=0.1,fast'], 'numbers above 0'),
    (['--descent_rates=0'], 'numbers above 0'),
    (['--descent_rates='], 'numbers above 0'),
  ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
  stem = tmp_path / 'new' / 'few'
  assert launch(f'--landscape_to={stem}', *arguments) == 1
  last = capsys.readouterr().err.strip().splitlines()[-1]
  assert last.startswith('error: ') and message in last
  assert not stem.parent.exists()


def test_files_of_others_stay(tmp_path):
  (tmp_path / 'few.md').write_text('mine')
  with pytest.raises(InputError, match=r'few\.md exists, but no landscape'):
    landscape.make(FEW, tmp_path / 'few')
  assert (tmp_path / 'few.md').read_text() == 'mine'


def test_all_that_differ_are_drawn():
  named = descent.methods(())
  names = {name.split()[0] for name in named}
  assert 'static 0.2,1.8' in named
  every = [
    *balancing.LOSS_WEIGHTINGS,
    *balancing.GRAMIAN_METHODS,
    *balancing.AGGREGATORS,
  ]
  assert names == {f.__name__ for f in every} - {'exponential', 'random'}


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda p: p.name)
def test_published_tables_are_those_of_the_figures(path):
  results = json.loads(path.read_text(encoding='utf-8'))
  assert landscape.page(results) == path.with_suffix('.md').read_text()
  assert landscape.csv(results) == path.with_suffix('.csv').read_text()
