"""The one exception that a launcher prints as a single line."""


class InputError(ValueError):
  """A mistake in what the user gave: a flag, a file, a folder.

  Its text says what was expected, what was found and what to do.
  """
