"""Packs a model; what cannot be packed is refused with what to do instead."""

from typing import Any

from lplmtl.compression import device_tables, packing
from lplmtl.tables import Tables


def pack(
  model: Any, frozen: Any, tables: Tables, hash_bits: int
) -> packing.Packed:
  """Returns a packed model.

  Args:
    model: of one seed.
    frozen: what `quantization.freeze` returned for it, or None.
    tables: of its encoder.
    hash_bits: of categories, see `packing.pack`.

  Raises:
    ValueError: the model cannot be packed.
  """
  if frozen is None:
    raise ValueError(
      '--format=packed needs a model that was trained with few bits, a '
      'compression.Quantized; found '
      f'{type(model).__name__}: make a small one with python -m '
      'experiments.compress, or export this one with --format=c99 --bits=8'
    )
  try:
    device_tables.checked(tables)
  except ValueError as error:
    hints = _hints(tables)
    if not hints:
      raise
    raise ValueError(f'{error}. Train with {" and ".join(hints)}') from error
  return packing.pack(frozen, tables, hash_bits=hash_bits)


def _hints(tables: Tables) -> list[str]:
  """Returns flags of experiments.tabular that avoid what is refused."""
  hints = []
  if any(scaler.interpolate for scaler in tables.numerics.values()):
    hints.append('--nointerpolate')
  if tables.booleans:
    hints.append(f'--categories={",".join(map(str, tables.booleans))}')
  if tables.dates:
    hints.append(f'--ignore={",".join(map(str, tables.dates))}')
  return hints
