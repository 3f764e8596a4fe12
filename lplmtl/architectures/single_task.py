"""Single-task learning: a model of its own for each task."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import common
from lplmtl.layers import experts
from lplmtl.types import Task


class SingleTask(nn.Module):
  """`y_k = h_k(f_k(x))`, with an encoder of its own for each task too.

  T separate models that train beside each other: what multi-task learning has
  to beat.

  Shared parameters: none. Their number: T times that of a shared-bottom with
  one task.

  Attributes:
    tasks: T tasks.
    encoder: template of the encoders `encoder_<task>`; None for none.
    bottom: template of the trunks `bottom_<task>`.
    tower: template of the body of each tower h_k; its head is added.
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((128,))
  tower: common.Tower = experts.MLP((32,))

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    del path
    return False

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    hidden = common.own_trunks(self, features, train=train)
    predictions = common.predict(self.tasks, self.tower, hidden, train=train)
    return predictions, {'gates': ()}
