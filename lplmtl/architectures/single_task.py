"""Single-task learning: a separate model for each task."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import _common
from lplmtl.layers import experts
from lplmtl.types import Task


class SingleTask(nn.Module):
  """`y_k = h_k(f_k(x))`, where each task also has its own encoder.

  T separate models are trained side by side: the baseline that multi-task
  learning has to beat.

  Shared parameters: none.

  Number of parameters: T times that of a shared-bottom with one task.

  Attributes:
    tasks: T tasks.
    encoder: template of the encoders `encoder_<task>`; None for none.
    bottom: template of the trunks `bottom_<task>`.
    tower: template of the bodies of the towers h_k, or a tuple with one per
      task; linear heads are added.
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((128,))
  tower: _common.TowerBody = experts.MLP((32,))

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    del path
    return False

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    hidden = _common.apply_trunks(self, features, train=train)
    predictions = _common.predict(self, hidden, train=train)
    return predictions, {'gates': ()}
