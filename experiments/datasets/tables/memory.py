"""Memory that is free again goes back to the operating system."""

import contextlib
import ctypes
import sys


def give_back() -> None:
  """Gives back memory that the C library or PyArrow keeps for later use.

  The former, of Linux, keeps arrays of up to 32 MB: those of a column of a long
  table, while larger ones, such as encoded rows, need memory of their own.
  """
  if 'pyarrow' in sys.modules:
    sys.modules['pyarrow'].default_memory_pool().release_unused()
  # Only glibc has the function; Windows has no library without a name.
  with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)
