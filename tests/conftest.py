"""Settings, options and fixtures for all tests."""

import collections
import gc
import os
import pathlib
import shutil
import signal
import tempfile

import jax
import pytest

# Keeps tests from writing to the user's home.
os.environ['XDG_CACHE_HOME'] = tempfile.mkdtemp(prefix='lplmtl-tests-')

# Tests that are started in the background, or by nohup, inherit ignored signals,
# and so do the launchers that they start.
for number in (signal.SIGINT, signal.SIGHUP):
  if signal.getsignal(number) == signal.SIG_IGN:
    is_interrupt = number == signal.SIGINT
    signal.signal(
      number, signal.default_int_handler if is_interrupt else signal.SIG_DFL
    )

# Most of a test's time goes into compiling, and many tests compile the same
# program: those that take long are kept, the others take longer to store.
for option, setting in {
  'jax_compilation_cache_dir': os.path.join(
    os.environ['XDG_CACHE_HOME'], 'jax'
  ),
  'jax_persistent_cache_min_compile_time_secs': 0.2,
  'jax_persistent_cache_min_entry_size_bytes': -1,
  'jax_disable_most_optimizations': True,
}.items():
  jax.config.update(option, setting)
  os.environ[option.upper()] = str(setting)  # for processes that tests start
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Tracing allocates so many objects that a twentieth of the time went into
# collecting garbage, of which there was hardly any.
gc.set_threshold(200_000, 20, 100)


def pytest_addoption(parser):
  parser.addoption(
    '--cases', type=int, metavar='N',
    help='run at most N cases of each parametrised test, evenly spaced',
  )  # fmt: skip
  parser.addoption(
    '--every', type=int, metavar='N', default=1,
    help='run every N-th test of each file, with all of its cases',
  )  # fmt: skip


@pytest.hookimpl(trylast=True)  # after -m has chosen
def pytest_collection_modifyitems(config, items):
  """Sorts files and, for versions that need not run them all, thins out tests.

  Where processes share the files, those that take long come first: the last ones
  decide for how long a process is idle.
  """
  if 'PYTEST_XDIST_WORKER' in os.environ:
    seconds = collections.Counter()
    for item in items:  # rough means of slow tests, and of all others
      seconds[item.path] += 4 if item.get_closest_marker('slow') else 0.2
    items.sort(key=lambda item: -seconds[item.path])
  limit, step = config.getoption('cases'), config.getoption('every')
  tests = collections.defaultdict(dict)
  for item in items:
    alike = tests[item.path].setdefault(item.nodeid.partition('[')[0], [])
    alike.append(item)
  kept = set()
  for of_file in tests.values():
    for alike in list(of_file.values())[::step]:
      count = min(limit or len(alike), len(alike))
      kept |= {alike[i * len(alike) // count] for i in range(count)}
  config.hook.pytest_deselected(items=[i for i in items if i not in kept])
  items[:] = [item for item in items if item in kept]


def pytest_unconfigure():
  """Removes the folder that the tests of this process wrote to."""
  shutil.rmtree(os.environ['XDG_CACHE_HOME'], ignore_errors=True)


@pytest.fixture(scope='session')
def census_dir():
  """Folder with the real data; without it, tests that need it are skipped."""
  folder = os.environ.get('LPLMTL_CENSUS_DIR')
  if not folder:
    pytest.skip('set LPLMTL_CENSUS_DIR to a folder with Census-Income files')
  return pathlib.Path(folder)


@pytest.fixture
def num_compiled(events):
  """Calls a function, and returns how many programs JAX compiled."""

  def counted(function, *args, **kwargs):
    before = len(events)
    function(*args, **kwargs)
    return sum('backend_compile' in event for event in events[before:])

  return counted


@pytest.fixture(scope='session')
def events():
  """The names of JAX's events; a listener stays as long as the process."""
  found = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: found.append(event)
  )
  return found
