"""Multi-task representation learning by Tucker factors (Yang et al. 2017)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl import _checks
from lplmtl.architectures import _common
from lplmtl.layers import experts
from lplmtl.types import Array, Task


class TensorFactorization(nn.Module):
  """Trunks whose kernels, stacked over tasks, are a Tucker product.

  The kernels of a layer form one `[D, H, T]` tensor:

      W = S x_1 U_1 x_2 U_2 x_3 U_3

  with the core S `[R_1, R_2, R_3]`, the input factor U_1 `[D, R_1]`, the output
  factor U_2 `[H, R_2]` and the task factor U_3 `[T, R_3]`. The inputs are
  projected first, so that W is never formed.

  Shared parameters: `encoder` and, in each layer, `core`, `input_factor` and
  `output_factor`.

  Number of parameters: encoder, R_1 R_2 R_3 + D R_1 + H R_2 + T R_3 + T H per
  layer, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, D]`; None to use them as they
      are.
    bottom: an MLP (not a subclass), whose layers are factorised.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    ranks: R_1, R_2, R_3; a rank above the size of its axis is reduced to it.

  Differs from the paper: the factors are initialised at random instead of from
  the singular vectors of trained single-task networks; biases are
  task-specific.

  References:
    Yang & Hospedales 2017, "Deep Multi-task Representation Learning: A Tensor
    Factorisation Approach" (Tucker).
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((128,))
  tower: _common.TowerBody = experts.MLP((32,))
  ranks: tuple[int, int, int] = (32, 32, 2)

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    if path[0] == 'encoder':
      return True
    return path[-1] in ('core', 'input_factor', 'output_factor')

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    names = _common.task_names(self.tasks)
    if type(self.bottom) is not experts.MLP:  # only its fields are used
      raise ValueError(
        'tensor factorisation takes an lplmtl.MLP, not a subclass, as its '
        f'`bottom`, whose layers it factorises; found '
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
    x = _common.encode(self.encoder, features, train=train)
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
    predictions = _common.predict(self, hidden, train=train)
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

    # The entries of W then have variance 2 / D, as in any layer before a relu.
    core = normal('core', (a, b, c), 1 / (a * c))
    project = normal('input_factor', (depth, a), 1 / depth)
    expand = normal('output_factor', (self.width, b), 2 / b)
    outputs = {}
    for name in names:
      factor = normal(f'task_factor_{name}', (c,), 1.0)
      bias = self.param(
        f'bias_{name}', nn.initializers.zeros, (self.width,), jnp.float32
      )
      x, down, middle, up, factor, bias = nn.dtypes.promote_dtype(
        inputs[name], project, core, expand, factor, bias, dtype=self.dtype
      )
      small = x @ down @ jnp.einsum('abc,c->ab', middle, factor)
      outputs[name] = small @ up.T + bias[None]
    return outputs
