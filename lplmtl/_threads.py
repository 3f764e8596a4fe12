"""Work on long columns, spread over the cores of a machine.

NumPy releases Python's lock while it sorts, looks up or computes. Results do
not depend on the number of threads: no call reads what another one writes.
"""

import os
from collections.abc import Callable, Iterable
from concurrent import futures
from typing import TypeVar

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
