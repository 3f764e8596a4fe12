"""Deep multi-task representation learning by Tucker factors (Yang 2017)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl import _checks
from lplmtl.architectures import common
from lplmtl.layers import experts
from lplmtl.types import Array, Task


class TensorFactorization(nn.Module):
  """Trunks whose weights, stacked over tasks, are a Tucker product.

  The kernels of a layer are one `[D, H, T]` tensor:

      W = S x_1 U_1 x_2 U_2 x_3 U_3

  with the core S `[R_1, R_2, R_3]` and the factors of inputs U_1 `[D, R_1]`, of
  outputs U_2 `[H, R_2]` and of tasks U_3 `[T, R_3]`. The inputs are projected
  first and W is never formed.

  Shared parameters: `encoder` and of each layer `core`, `input_factor`,
  `output_factor`. Their number, a layer: R_1 R_2 R_3 + D R_1 + H R_2 + T R_3 +
  T H.

  Attributes:
    tasks: T tasks.
    encoder: module from features to `[B, D]`; None takes them as they are.
    bottom: an MLP, whose layers are factorised; no subclass.
    tower: template of the body of each tower; its head is added.
    ranks: R_1, R_2, R_3; each at most the size that it stands for is used.

  Differs from the paper: the factors start at random instead of from the
  singular vectors of trained single-task networks; biases are each task's own.

  References:
    Yang & Hospedales 2017, "Deep Multi-task Representation Learning: A Tensor
    Factorisation Approach" (Tucker).
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((128,))
  tower: common.Tower = experts.MLP((32,))
  ranks: tuple[int, int, int] = (32, 32, 2)

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    if path[0] == 'encoder':
      return True
    return path[-1] in ('core', 'input_factor', 'output_factor')

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    names = common.task_names(self.tasks)
    if type(self.bottom) is not experts.MLP:  # only its fields are used
      raise ValueError(
        'tensor factorisation takes an lplmtl.MLP as its `bottom`, and no '
        'subclass, whose layers it factorises; found '
        f'{type(self.bottom).__name__}'
      )
    experts.check_mlp(self.bottom)
    ranks = self.ranks
    if not isinstance(ranks, tuple | list) or not (
      len(ranks) == 3 and all(map(_checks.is_whole_number, ranks))
    ):
      raise ValueError(
        'ranks must be three numbers of at least 1, for inputs, outputs and '
        f'tasks; found {self.ranks}'
      )
    x = common.encode(self.encoder, features, train=train)
    if x.ndim != 2:
      raise ValueError(
        f'tensor factorisation reads vectors, [B, D]; found {x.shape}'
      )
    hidden = dict.fromkeys(names, x)
    for i, width in enumerate(self.bottom.widths):
      layer = _Layer(
        names, width, self.ranks, self.bottom.dtype, name=f'layer_{i}'
      )
      outputs = layer(hidden)
      for name in names:
        hidden[name] = experts.drop(
          self,
          self.bottom.dropout_rate,
          self.bottom.activation(outputs[name]),
          train=train,
        )
    predictions = common.predict(self.tasks, self.tower, hidden, train=train)
    return predictions, {'gates': ()}


class _Layer(nn.Module):
  task_names: tuple[str, ...]
  width: int
  ranks: tuple[int, int, int]
  dtype: Any

  @nn.compact
  def __call__(self, inputs: dict[str, Array]) -> dict[str, Array]:
    names = self.task_names
    depth = inputs[names[0]].shape[1]
    sizes = (depth, self.width, len(names))
    a, b, c = (min(r, n) for r, n in zip(self.ranks, sizes, strict=True))

    def normal(name: str, shape: tuple[int, ...], variance: float) -> Array:
      init = nn.initializers.normal(math.sqrt(variance))
      return self.param(name, init, shape, jnp.float32)

    # Together W has the variance 2 / D, as any layer before a relu.
    core = normal('core', (a, b, c), 1 / (a * c))
    project = normal('input_factor', (depth, a), 1 / depth)
    expand = normal('output_factor', (self.width, b), 2 / b)
    outputs = {}
    for name in names:
      factor = normal(f'task_factor_{name}', (c,), 1.0)
      bias = self.param(
        f'bias_{name}', nn.initializers.zeros, (self.width,), jnp.float32
      )
      x, down, middle, up, own, bias = nn.dtypes.promote_dtype(
        inputs[name], project, core, expand, factor, bias, dtype=self.dtype
      )
      small = x @ down @ jnp.einsum('abc,c->ab', middle, own)
      outputs[name] = small @ up.T + bias[None]
    return outputs
