"""Memory that is free again serves others, or goes back to the system."""

import contextlib
import ctypes
import sys

_ARENA_MAX = -8  # `M_ARENA_MAX` of glibc's malloc.h


def share() -> None:
  """Has all threads take memory from the same place.

  glibc would give each thread that reads or encodes a place of its own, where
  up to 30 MB stay that no other thread uses. For good: this cannot be undone.
  """
  with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_back() -> None:
  """Gives back memory that the C library or PyArrow keeps for later use.

  The former, of Linux, keeps arrays of up to 32 MB: those of a column of a long
  table, while larger ones, such as encoded rows, need memory of their own.
  """
  if pyarrow := sys.modules.get('pyarrow'):
    pyarrow.default_memory_pool().release_unused()
  # Only glibc has the function; Windows has no library without a name.
  with contextlib.suppress(AttributeError, OSError, TypeError):
    ctypes.CDLL(None).malloc_trim(0)
