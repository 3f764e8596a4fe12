"""The error for folders that cannot be written or read.

It has its own module so that code that catches it need not import Orbax.
"""


class CheckpointError(ValueError):
  """A folder cannot be written, or what it holds is damaged or unsuitable."""
