"""Multi-task attention network, for vectors (after Liu et al. 2019)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.architectures import _common
from lplmtl.layers import experts, modules
from lplmtl.types import Array, Task


class MTAN(nn.Module):
  """One shared trunk, from which each task selects by soft attention masks.

  Block j of the trunk has two layers, u_j and p_j; the attention module of task
  k has one mask over p_j (eq. 1 and 2, with dense layers for convolutions):

      u_j = act(U_j p_{j-1}),  p_j = act(P_j u_j),
      a_kj = sigmoid(H_kj act(G_kj [u_j ; act(F_j b_k,j-1)])),
      b_kj = a_kj * p_j

  All tasks share F, which the lowest block lacks. The tower of task k reads its
  topmost b_kj.

  Shared parameters: `encoder`, `block_*/u`, `block_*/p` and `block_*/f`.

  Number of parameters: encoder, towers, and for a block of width H on D inputs
  (D + 1) H + (H + 1) H shared and, per task, 2 (H + 1) H. A block above one of
  width H' has (H' + 1) H more shared parameters and, per task, (2 H + 1) H +
  (H + 1) H.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, D]`; None to use them as they
      are.
    levels: an MLP of one layer (not a subclass) per block, lowest first, which
      gives the block's width, activation, dtype and dropout (after p_j).
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.

  Differs from the paper: dense layers without batch normalisation instead of a
  convolutional encoder and decoder.

  References:
    Liu et al. 2019, "End-to-End Multi-Task Learning with Attention".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  tower: _common.TowerBody = experts.MLP((32,))

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    if path[0] == 'encoder':
      return True
    return path[0].startswith('block_') and path[1] in ('u', 'p', 'f')

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    names = _common.task_names(self.tasks)
    _common.check_levels(self.levels)
    # Only the fields are used, and a subclass may compute something else.
    layers: list[Any] = [x for x in self.levels if type(x) is experts.MLP]
    widths = [x.widths for x in layers]
    for layer in layers:
      experts.check_mlp(layer)
    if len(layers) < len(self.levels) or any(len(x) != 1 for x in widths):
      found: Any = widths
      if len(layers) < len(self.levels):
        found = [type(x).__name__ for x in self.levels]
      raise ValueError(
        'each level of MTAN must be an lplmtl.MLP of one layer, not a '
        'subclass, which gives its width, such as (MLP((64,)), MLP((32,))); '
        f'found {found}'
      )
    p = _common.encode(self.encoder, features, train=train)
    masked: dict[str, Array] = {}
    for i, layer in enumerate(layers):
      block = _Block(names, modules.fresh(layer), name=f'block_{i}')
      p, masked = block(p, masked, train=train)
    predictions = _common.predict(self, masked, train=train)
    return predictions, {'gates': ()}


class _Block(nn.Module):
  task_names: tuple[str, ...]
  layer: Any

  @nn.compact
  def __call__(
    self, p: Array, below: dict[str, Array], *, train: bool = False
  ) -> tuple[Array, dict[str, Array]]:
    act, (width,) = self.layer.activation, self.layer.widths

    def dense(name: str) -> nn.Dense:
      return nn.Dense(
        width,
        dtype=self.layer.dtype,
        kernel_init=nn.initializers.he_normal(),
        name=name,
      )

    u = act(dense('u')(p))
    p = act(dense('p')(u))
    extract = dense('f') if below else None
    p = experts.drop(self, self.layer.dropout_rate, p, train=train)
    outputs = {}
    for name in self.task_names:
      seen = u
      if extract is not None:
        seen = jnp.concatenate([u, act(extract(below[name]))], axis=1)
      mask = dense(f'h_{name}')(act(dense(f'g_{name}')(seen)))
      outputs[name] = jax.nn.sigmoid(mask) * p
    return p, outputs
