"""Experts: E copies of any Linen module, parameters stacked on axis 0."""

import inspect
from typing import Any

import flax.linen as nn

from lplmtl.types import Array


class MLP(nn.Module):
  """Dense layers, each followed by an activation (and dropout).

  Attributes:
    widths: units of each layer, `()` for the identity.
    activation: elementwise function.
    dropout_rate: share of units dropped after each activation, in [0, 1).
    dtype: compute dtype; None takes that of the input and the parameters.
  """

  widths: tuple[int, ...] = (64,)
  activation: Any = nn.relu
  dropout_rate: float = 0.0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Maps `[B, ..., D]` to `[B, ..., widths[-1]]`."""
    if any(width < 1 for width in self.widths):
      raise ValueError(
        f'MLP widths must be at least 1, found {tuple(self.widths)}'
      )
    for i, width in enumerate(self.widths):
      layer = nn.Dense(
        width,
        dtype=self.dtype,
        kernel_init=nn.initializers.he_normal(),
        name=f'layer_{i}',
      )
      x = self.activation(layer(x))
      if self.dropout_rate > 0:
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return x


class Experts(nn.Module):
  """E copies of one module that read the same input.

  The copies' parameters are stacked on axis 0 (one `[E, D, H]` kernel instead
  of E kernels): it traces and compiles faster than a list, and dropping an
  expert is a slice. Every copy is initialised by its own key.

  Attributes:
    expert: any Linen module without mutable collections, as a template. It is
      called as `expert(x)`, or `expert(x, train=...)` if it takes that.
    num_experts: E >= 1.
  """

  expert: nn.Module
  num_experts: int

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Maps `[B, ...]` to `[B, E, ...]`."""
    if self.num_experts < 1:
      raise ValueError(
        f'the number of experts must be at least 1, found {self.num_experts}'
      )
    copies = nn.vmap(
      lambda expert, x: call(expert, x, train=train),
      in_axes=None,
      out_axes=1,
      axis_size=self.num_experts,
      variable_axes={'params': 0},
      split_rngs={'params': True, 'dropout': True},
    )
    return copies(self.expert, x)


def call(module: nn.Module, x: Array, *, train: bool) -> Array:
  """Applies a module, handing on `train` if it takes it."""
  if 'train' in inspect.signature(module.__call__).parameters:
    return module(x, train=train)
  return module(x)


def fresh(module: nn.Module) -> nn.Module:
  """An unbound copy of a template, so that each use has its own parameters."""
  return module if module.scope is None else module.unbind()[0]
