"""The error of folders that cannot be written or read.

It stands by itself so that code which catches it need not import Orbax.
"""


class CheckpointError(ValueError):
  """A folder cannot be written, or what it holds is damaged or unsuitable."""
