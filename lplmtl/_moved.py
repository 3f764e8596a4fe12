"""Modules by the names that they had before, for one more release."""

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


def __getattr__(name: str) -> Any:
  """The module that `from lplmtl import <name>` used to give.

  Raises:
    AttributeError: the package never held such a name.
  """
  if name not in MOVED:
    raise AttributeError(f"module 'lplmtl' has no attribute {name!r}")
  moved = f'lplmtl.{MOVED[name]}'
  warnings.warn(
    f'lplmtl.{name} is now {moved}', DeprecationWarning, stacklevel=2
  )
  return importlib.import_module(moved)
