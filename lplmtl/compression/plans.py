"""How many bits each parameter of a model gets, and which share a scale."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lplmtl import _checks
from lplmtl.compression import encoders, leaves
from lplmtl.types import PyTree

BITS = (2, 3, 4, 8)
SCALE_BITS = (8, 16, 32)
VECTOR_BITS = (4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Scheme:
  """How many bits the parameters of a model have.

  Matrices are all arrays of two axes and more, except biases. A matrix `[...,
  D, H]` has a scale for each of its outputs H (and each expert of a stack); the
  embeddings of an encoder have one for each column of the table.

  Attributes:
    bits: of each number in a matrix: 2 (ternary), 3, 4 or 8.
    embedding_bits: of each number in an encoder's embeddings; None for `bits`.
    scale_bits: of each scale: 32, 16 (float16), or 8 (5 bits of exponent, 3 of
      mantissa).
    vector_bits: of each number outside matrices, biases above all: 32, 16
      (float16), or 8 or 4 (integers, one scale per array).
    least: outputs with fewer inputs than this share one scale per matrix: with
      a scale of their own, they would cost more bytes than with one bit more.
    keep: names of parameters, or of modules, that stay float32.
  """

  bits: int = 4
  embedding_bits: int | None = None
  scale_bits: int = 16
  vector_bits: int = 32
  least: int = 8
  keep: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    for name, offered in (
      ('bits', BITS),
      ('embedding_bits', (None, *BITS)),
      ('scale_bits', SCALE_BITS),
      ('vector_bits', VECTOR_BITS),
    ):
      value = getattr(self, name)
      if isinstance(value, bool) or value not in offered:
        raise ValueError(
          f'{name} must be one of {", ".join(map(str, offered))}; found '
          f'{value!r}'
        )
    if not _checks.is_whole_number(self.least):
      raise ValueError(
        f'least must be a whole number of at least 1, found {self.least!r}'
      )
    if isinstance(self.keep, str) or not isinstance(self.keep, Sequence):
      raise ValueError(
        f"keep must be a tuple of names, such as ('head',); found {self.keep!r}"
      )


@dataclasses.dataclass(frozen=True)
class Plan:
  """What becomes of one array.

  Attributes:
    bits: of a number: 32 (kept), 16 (a float) or those of a code.
    scale_bits: of a scale.
    axes: over which numbers share a scale; with `sizes`, those of `[C, rows of
      a column, embed_dim]`.
    sizes: the numbers of rows of the C columns of embeddings; or ().
    is_matrix: whether the array is a matrix.
  """

  bits: int
  scale_bits: int
  axes: tuple[int, ...] = ()
  sizes: tuple[int, ...] = ()
  is_matrix: bool = False


def make(model: Any, scheme: Scheme, params: PyTree) -> PyTree:
  """Returns a pytree of plans like `params`.

  Raises:
    ValueError: there are no matrices, `keep` has a name that no parameter has,
      or an encoder's embeddings have another number of rows than its columns.
  """
  tables = _tables(model)
  known = {part for name in leaves.names(params) for part in name.split('/')}
  if unknown := set(scheme.keep) - known:
    raise ValueError(
      f'keep must name parameters or modules, of which {sorted(known)} exist; '
      f'found {sorted(unknown)}'
    )
  plans = leaves.map_named(
    lambda name, leaf: _plan_of(name, leaf, scheme, tables), params
  )
  if not any(one.is_matrix for one in jax.tree.leaves(plans)):
    kept = scheme.keep
    raise ValueError(
      f'{type(model).__name__} has no matrices to quantise'
      + (f' besides those to keep, {kept}' if kept else '')
    )
  return plans


def _plan_of(
  name: str, leaf: Any, scheme: Scheme, tables: dict[str, tuple[int, ...]]
) -> Plan:
  *_, last = parts = name.split('/')
  is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
  if set(parts) & set(scheme.keep) or not is_float:
    return Plan(32, 32)
  if not leaves.is_matrix(name, leaf):
    axes = tuple(range(len(leaf.shape)))
    return Plan(scheme.vector_bits, scheme.scale_bits, axes)
  if last in tables:
    if sum(tables[last]) != leaf.shape[0]:
      raise ValueError(
        f'{name} must have {sum(tables[last])} rows, one for each value of the '
        f'columns of the encoder; found {leaf.shape[0]}: pass the parameters '
        'of this model'
      )
    bits = scheme.embedding_bits or scheme.bits
    return Plan(bits, scheme.scale_bits, (1, 2), tables[last], True)
  few = leaf.shape[-2] < scheme.least
  axes = (-2, -1) if few else (-2,)
  return Plan(scheme.bits, scheme.scale_bits, axes, is_matrix=True)


def _tables(model: Any) -> dict[str, tuple[int, ...]]:
  """Returns `{parameter: rows of each column}` of an encoder's embeddings."""
  encoder = encoders.find(model)
  if encoder is None:
    return {}
  tables = getattr(
    encoder, 'table_sizes', {'embedding': encoder.num_categories}
  )
  return {name: tuple(sizes) for name, sizes in tables.items() if sizes}
