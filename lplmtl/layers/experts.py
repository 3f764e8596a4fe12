"""Experts: E copies of any Linen module, parameters stacked on axis 0."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl import _checks
from lplmtl.layers import dropout, modules, products
from lplmtl.types import Array, PyTree


class MLP(nn.Module):
  """Dense layers, each followed by an activation (and dropout).

  Attributes:
    widths: number of units per layer; `()` for the identity.
    activation: elementwise function.
    dropout_rate: fraction of units dropped after each activation, in [0, 1);
      may be a traced scalar.
    dtype: dtype of the computation, such as 'bfloat16'; None infers it from the
      input and the parameters. The parameters are float32 in either case.

  Example:
    >>> key, x = jax.random.key(0), jnp.ones((2, 8))
    >>> hidden, _ = jax.eval_shape(MLP((16, 4)).init_with_output, key, x)
    >>> hidden.shape
    (2, 4)
  """

  widths: tuple[int, ...] = (64,)
  activation: Any = nn.relu
  dropout_rate: Any = 0.0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Maps `[B, ..., D]` to `[B, ..., widths[-1]]`."""
    check_mlp(self)
    for i, width in enumerate(self.widths):
      layer = nn.Dense(
        width,
        dtype=self.dtype,
        kernel_init=nn.initializers.he_normal(),
        name=f'layer_{i}',
      )
      x = self.activation(layer(x))
      x = drop(self, self.dropout_rate, x, train=train)
    return x


def check_mlp(mlp: MLP) -> None:
  """Raises ValueError unless the fields of an MLP are valid."""
  widths, activation = mlp.widths, mlp.activation
  is_tuple = isinstance(widths, tuple | list)
  if not is_tuple or not all(map(_checks.is_whole_number, widths)):
    raise ValueError(
      'MLP widths must be a tuple of whole numbers of at least 1, such as '
      f'(64,) or (128, 64); found {widths!r}'
    )
  if not callable(activation):
    raise ValueError(
      'MLP activation must be a function, such as nn.relu; found '
      f'{activation!r}'
    )
  try:
    is_float = mlp.dtype is None or jnp.issubdtype(mlp.dtype, jnp.floating)
  except TypeError:
    is_float = False
  if not is_float:
    raise ValueError(
      "MLP dtype must be None or a floating-point dtype, such as 'bfloat16'; "
      f'found {mlp.dtype!r}'
    )


class Experts(nn.Module):
  """E copies of one module that read the same input.

  The parameters of the copies are stacked on axis 0 (one `[E, D, H]` kernel
  instead of E kernels): this traces and compiles faster than a list, and
  pruning an expert is a slice. Each copy is initialised with its own key.

  Attributes:
    expert: any Linen module, as a template (see `lplmtl.layers.modules.call`).
    num_experts: E >= 1.
  """

  expert: nn.Module
  num_experts: int

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """Maps `[B, ...]` to `[B, E, ...]`."""
    stack = declare(self, 'stack', self.expert, self.num_experts, x)
    key = dropout_key(self, train=train)
    pools = [(stack, self.num_experts)]
    return run(self.expert, pools, [], x, key=key, train=train)[0][0]


def declare(
  module: nn.Module, name: str, expert: nn.Module, num_experts: int, x: Array
) -> PyTree:
  """Declares a stack of experts as a parameter of `module`.

  Args:
    module: the module that owns the parameter; call this in its compact method.
    name: name of the parameter, a pytree like the expert's own with leaves
      `[E, ...]`.
    expert: template.
    num_experts: E >= 1.
    x: an input; only its shape and dtype matter.

  Raises:
    ValueError: E is below 1, is not the leading axis of the stored parameter,
      or the expert has collections other than `params`.
  """
  if not _checks.is_whole_number(num_experts):
    raise ValueError(
      f'the number of {name} must be a whole number of at least 1, found '
      f'{num_experts!r}'
    )
  if module.has_variable('params', name):
    # `module.param` would trace the initialisers again to compare shapes, which
    # took 40 % of the time of tracing all architectures.
    stack = nn.unbox(module.get_variable('params', name))
    found = {leaf.shape[:1] for leaf in jax.tree.leaves(stack)}
    if found - {(num_experts,)}:
      raise ValueError(
        f'the parameter {name!r} must hold {num_experts} experts on axis 0, '
        f'found leading axes {sorted(found)}: pass the parameters of this '
        'model, of one seed'
      )
    return stack

  def init(key: Array) -> PyTree:
    keys = jax.random.split(key, num_experts)
    return jax.vmap(lambda key: modules.init(expert, key, x[:1]))(keys)

  return module.param(name, init)


def run(
  expert: nn.Module,
  pools: Sequence[tuple[PyTree, int]],
  kernels: Sequence[Array],
  x: Array,
  *,
  key: Array | None,
  train: bool,
) -> tuple[list[Array], list[Array]]:
  """Applies stacks of experts, and the kernels of gates, to one input.

  The first layers of all MLP experts and all kernels form one matrix product.
  Any other module, including a subclass of MLP, is mapped over its stacked
  parameters.

  Args:
    expert: template.
    pools: stacks of parameters, each with its number of experts E_p.
    kernels: `[D, G_i]` each, applied to the flattened input.
    x: `[B, ...]`.
    key: key for dropout; None for no dropout.
    train: whether dropout is active.

  Returns:
    (outputs, products): `[B, E_p, ...]` per pool and `[B, G_i]` per kernel.
  """
  flat = x.reshape(x.shape[0], -1)
  if not pools:
    return [], _products(flat, kernels)
  stacks, counts = zip(*pools, strict=True)
  if type(expert) is MLP and expert.widths and x.ndim == 2:
    outputs, of_kernels = _run_mlps(expert, stacks, kernels, x, key, train)
  else:
    params = concatenate(stacks)
    outputs = _run_any(expert, params, sum(counts), x, key, train)
    of_kernels = _products(flat, kernels)
  return products.split(outputs, counts), of_kernels


def _run_any(
  expert: nn.Module,
  params: PyTree,
  num_experts: int,
  x: Array,
  key: Array | None,
  train: bool,
) -> Array:
  template = modules.fresh(expert)

  def one(params: PyTree, number: Array) -> Array:
    rngs = {}
    if key is not None:
      rngs = {'dropout': jax.random.fold_in(key, number)}
    bound = template.bind({'params': params}, rngs=rngs)
    return modules.map_rows(bound, x, train=train)

  return jax.vmap(one, out_axes=1)(params, jnp.arange(num_experts))


def _run_mlps(
  expert: MLP,
  stacks: Sequence[PyTree],
  kernels: Sequence[Array],
  x: Array,
  key: Array | None,
  train: bool,
) -> tuple[Array, list[Array]]:
  # Stack by stack: XLA joins and transposes in one loop, which takes five times
  # as long as the transposition of each stack.
  flat = [
    first.transpose(1, 0, 2).reshape(x.shape[1], -1)
    for first in (stack['layer_0']['kernel'] for stack in stacks)
  ]
  bias = concatenate([stack['layer_0']['bias'] for stack in stacks])
  hidden, *of_kernels = products.joined(
    x,
    [*flat, *kernels],
    [bias.size, *(kernel.shape[1] for kernel in kernels)],
    bias=bias.reshape(-1),
    dtype=expert.dtype,
    train=train,
  )
  hidden = _finish(expert, hidden, key, 0, train)
  hidden = hidden.reshape(-1, *bias.shape)
  for i in range(1, len(expert.widths)):
    layer = concatenate([stack[f'layer_{i}'] for stack in stacks])
    kernel, bias = layer['kernel'], layer['bias']
    hidden, kernel, bias = nn.dtypes.promote_dtype(
      hidden, kernel, bias, dtype=expert.dtype
    )
    hidden = jnp.einsum('beh,ehk->bek', hidden, kernel) + bias[None]
    hidden = _finish(expert, hidden, key, i, train)
  return hidden, of_kernels


def _finish(
  expert: MLP, x: Array, key: Array | None, layer: int, train: bool
) -> Array:
  x = expert.activation(x)
  if not train or dropout.is_zero(expert.dropout_rate):
    return x
  key = jax.random.fold_in(_require(key), layer)
  return dropout.dropout(key, x, expert.dropout_rate)


def _products(x: Array, kernels: Sequence[Array]) -> list[Array]:
  """Returns `[x @ kernel for kernel in kernels]`, from one product."""
  if not kernels:
    return []
  return products.joined(x, kernels, [kernel.shape[1] for kernel in kernels])


def drop(module: nn.Module, rate: Any, x: Array, *, train: Any) -> Array:
  """Applies dropout inside a module's compact method.

  Under `nn.remat`, `train` is traced; a key then exists in training only.
  """
  is_traced = isinstance(train, jax.Array)
  if dropout.is_zero(rate) or not (is_traced or train):
    return x
  key = module.make_rng('dropout') if module.has_rng('dropout') else None
  if is_traced and key is None:
    return x
  dropped = dropout.dropout(_require(key), x, rate)
  return jnp.where(train, dropped, x) if is_traced else dropped


def _require(key: Array | None) -> Array:
  if key is None:
    raise ValueError(
      'dropout in training needs a random key, found none: call '
      "model.apply(..., train=True, rngs={'dropout': key})"
    )
  return key


def dropout_key(module: nn.Module, *, train: bool) -> Array | None:
  """Returns the key for the experts' dropout, or None if there is none."""
  if not train or not module.has_rng('dropout'):
    return None
  return module.make_rng('dropout')


def concatenate(stacks: Sequence[PyTree]) -> PyTree:
  """Joins several stacks of experts into one."""
  return jax.tree.map(lambda *leaves: products.join(leaves, axis=0), *stacks)
