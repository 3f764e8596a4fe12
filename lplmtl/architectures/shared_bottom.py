"""Shared-bottom (Caruana 1997): one trunk and one tower per task."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import _common
from lplmtl.layers import experts, modules
from lplmtl.types import Array, Task


class SharedBottom(nn.Module):
  """`y_k = h_k(f(x))` (Ma et al. 2018, eq. 1).

  Shared parameters: `encoder`, `bottom`.

  Number of parameters: encoder, trunk, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    bottom: the trunk f, any Linen module.
    tower: template of the bodies of the towers h_k, or a tuple with one per
      task; linear heads are added.

  References:
    Caruana 1997, "Multitask Learning".

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from lplmtl import tasks
    >>> todo = tasks.binary('click'), tasks.multiclass('item', 3)
    >>> model = SharedBottom(todo)
    >>> key, x = jax.random.key(0), jnp.ones((2, 8))
    >>> (logits, aux), params = jax.eval_shape(model.init_with_output, key, x)
    >>> {name: x.shape for name, x in logits.items()}  # [B, K]
    {'click': (2, 1), 'item': (2, 3)}
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((128,))
  tower: _common.TowerBody = experts.MLP((32,))

  def setup(self) -> None:
    """Creates the towers."""
    self.towers = _common.make_towers(self.tasks, self.tower)

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return path[0] in ('encoder', 'bottom')

  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    return self.predict(self.represent(features, train=train), train=train)

  def represent(self, features: Any, *, train: bool = False) -> Array:
    """Returns `[B, H]`, which all towers read: f(x)."""
    x = _common.encode(self.encoder, features, train=train)
    return modules.map_rows(self.bottom, x, train=train)

  def predict(
    self, representation: Array, features: Any = None, *, train: bool = False
  ) -> _common.Predictions:
    """Predicts from `represent(features)`; the features are not used."""
    inputs = dict.fromkeys(self.towers, representation)
    predictions = _common.predict(self, inputs, train=train)
    return predictions, {'gates': ()}
