"""Old module names, which keep working for one more release."""

import importlib
import warnings
from typing import Any

MOVED = {
  'arrays': 'training.arrays',
  'balanced': 'training.balanced',
  'checks': 'training.checks',
  'dropout': 'layers.dropout',
  'encoder': 'layers.encoder',
  'experts': 'layers.experts',
  'extraction': 'layers.extraction',
  'files': 'storage.files',
  'folders': 'storage.folders',
  'frozen': 'training.frozen',
  'gates': 'inspection',
  'gradients': 'training.gradients',
  'mixture': 'layers.mixture',
  'modules': 'layers.modules',
  'nonfinite': 'training.nonfinite',
  'optimizers': 'training.optimizers',
  'parallel': 'training.parallel',
  'parts': 'training.microbatch',
  'programs': 'training.programs',
  'progress': 'training.progress',
  'returned': 'training.returned',
  'saves': 'storage.saves',
  'scopes': 'training.scopes',
  'steps': 'training.steps',
  'towers': 'layers.towers',
}


def find(name: str) -> Any:
  """Imports a module by its old name, with a DeprecationWarning.

  Raises:
    AttributeError: the package never had this name.
  """
  if name not in MOVED:
    raise AttributeError(f"module 'lplmtl' has no attribute {name!r}")
  module = f'lplmtl.{MOVED[name]}'
  warnings.warn(
    f'lplmtl.{name} is now {module}',
    DeprecationWarning,
    stacklevel=3,  # the caller of the package's __getattr__
  )
  return importlib.import_module(module)
