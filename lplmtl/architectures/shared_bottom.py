"""Shared-bottom (Caruana 1997): one trunk, one tower a task."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import common
from lplmtl.layers import experts, modules
from lplmtl.types import Array, Task


class SharedBottom(nn.Module):
  """`y_k = h_k(f(x))` (Ma et al. 2018, eq. 1).

  Shared parameters: `encoder`, `bottom`. Their number: encoder, trunk, and the
  towers.

  Attributes:
    tasks: T tasks.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    bottom: the trunk f, any Linen module.
    tower: template of the body of each tower h_k; its head is added.

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
  tower: common.Tower = experts.MLP((32,))

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    return path[0] in ('encoder', 'bottom')

  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    return self.predict(self.represent(features, train=train), train=train)

  def represent(self, features: Any, *, train: bool = False) -> Array:
    """`[B, H]`, what all towers read: f(x)."""
    return self._apply(features, None, train)

  def predict(
    self, representation: Array, features: Any = None, *, train: bool = False
  ) -> common.Predictions:
    """The predictions from `represent(features)`."""
    return self._apply(features, representation, train)

  @nn.compact
  def _apply(
    self, features: Any, representation: Array | None, train: bool
  ) -> Any:
    names = common.task_names(self.tasks)
    if representation is None:
      x = common.encode(self.encoder, features, train=train)
      return modules.map_rows(self.bottom, x, train=train)
    inputs = dict.fromkeys(names, representation)
    predictions = common.predict(self.tasks, self.tower, inputs, train=train)
    return predictions, {'gates': ()}
