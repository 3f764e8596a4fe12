"""What every test runs under."""

import collections
import os
import pathlib
import shutil
import signal
import tempfile

import jax
import pytest

# Nothing that a test writes goes under the user's home.
os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='lplmtl-tests-')

# Started in the background, or by nohup, tests would inherit ignored signals,
# and so would the launchers that they start.
for number in (signal.SIGINT, signal.SIGHUP):
  if signal.getsignal(number) == signal.SIG_IGN:
    is_interrupt = number == signal.SIGINT
    signal.signal(
      number, signal.default_int_handler if is_interrupt else signal.SIG_DFL
    )

jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_addoption(parser):
  parser.addoption(
    '--cases', type=int, metavar='N',
    help='of each parametrised test run N cases at most, evenly spaced',
  )  # fmt: skip


def pytest_collection_modifyitems(config, items):
  """Leaves out cases, where other versions run all of them."""
  most = config.getoption('cases')
  if most is None:
    return
  cases = collections.defaultdict(list)
  for item in items:
    cases[item.nodeid.partition('[')[0]].append(item)
  kept = set()
  for alike in cases.values():
    step = max(1, len(alike) / most)
    kept |= {alike[int(i * step)] for i in range(min(most, len(alike)))}
  config.hook.pytest_deselected(items=[i for i in items if i not in kept])
  items[:] = [item for item in items if item in kept]


def pytest_unconfigure():
  """Removes the folder that this process's tests wrote to."""
  shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


@pytest.fixture(scope='session')
def census_dir():
  """Folder with real rows; tests that need it are skipped without."""
  folder = os.environ.get('LPLMTL_CENSUS_DIR')
  if not folder:
    pytest.skip('set LPLMTL_CENSUS_DIR to a folder with Census-Income files')
  return pathlib.Path(folder)
