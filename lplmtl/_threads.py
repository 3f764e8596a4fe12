"""Work on long columns, spread over the cores of a machine.

NumPy releases Python's lock while it sorts, looks up or computes. Results do
not depend on the number of threads: no call reads what another one writes.
"""

import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, TypeVar

_In = TypeVar('_In')
_Out = TypeVar('_Out')

# With fewer rows, the work takes less time than to start a thread.
_MIN_ROWS = 1 << 15


def each(
  function: Callable[[_In], _Out],
  items: Iterable[_In],
  num_rows: int = _MIN_ROWS,
) -> list[_Out]:
  """Returns `function(item)` for each item, in order.

  If several calls raise, the error is that of the first of their items.

  Args:
    function: what to call.
    items: what to call it with.
    num_rows: how many rows a call works on; for few, no thread is started.
  """
  items = list(items)
  if len(items) < 2 or num_rows < _MIN_ROWS:
    return list(map(function, items))
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    return list(pool.map(function, items))


def ahead(jobs: Iterable[Callable[[], _Out]]) -> Iterator[_Out]:
  """Returns what jobs return, in order, while threads do the next ones.

  An error, also one of `jobs` itself, is raised in its turn.

  Args:
    jobs: of which some are taken beforehand, one at a time.
  """
  threads = os.cpu_count() or 1
  with futures.ThreadPoolExecutor(threads) as pool:
    coming: collections.deque[futures.Future[_Out]] = collections.deque()
    for job in _with_error(jobs):
      coming.append(pool.submit(job))
      if len(coming) > threads:
        yield coming.popleft().result()
    while coming:
      yield coming.popleft().result()


def _with_error(
  jobs: Iterable[Callable[[], _Out]],
) -> Iterator[Callable[[], _Out]]:
  """Returns the same jobs, the last one of which raises their error."""
  try:
    yield from jobs
  except Exception as error:
    yield functools.partial(_raise, error)


def _raise(error: Exception) -> Any:
  raise error
