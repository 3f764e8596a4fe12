"""`experiments.launcher.options` by its old name, for one more release."""

import warnings

from experiments.launcher.options import Config as Config

warnings.warn(
  'experiments.options is now experiments.launcher.options',
  DeprecationWarning,
  stacklevel=2,
)
