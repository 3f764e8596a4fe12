"""Entire-space multi-task model (Ma et al. 2018), for tasks in a chain."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.architectures import _common
from lplmtl.layers import experts
from lplmtl.types import Batch, Task


class ESMM(nn.Module):
  """Probabilities along a chain, such as view, click, buy, multiply.

  Step k of the chain can only happen after step k - 1. Over all rows, its label
  is 1 if all steps up to k have happened, and its probability is (eq. 1)

      p_k = prod_{j<=k} sigmoid(a_j),  a_j = h_j(f_j(x))

  so that no step learns from a biased sample of the rows. The returned logits
  are log p_k - log(1 - p_k), computed in log space: log p_k is a sum, and

      1 - p_k = (1 - p_{k-1}) + p_{k-1} sigmoid(-a_k)

  The method's target, the probability of step k among the rows that reached
  step k - 1 (the paper's p(conversion | click)), is sigmoid(a_k); its logits
  a_k are `aux['conditional_logits']`. Use these instead of p_k / p_{k-1}, which
  may be 0 / 0.

  Shared parameters: `encoder`, and the trunk and tower of every step but the
  last: the probabilities of all later steps contain them as factors.

  Number of parameters: encoder, T trunks and T towers.

  Attributes:
    tasks: T binary tasks in the order of the chain.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    bottom: template of the trunks f_k, `bottom_<task>`.
    tower: template of the bodies of the towers h_k, or a tuple with one per
      task; linear heads are added.

  Do not mask rows that lack an earlier step (`Batch.where`): the labels of all
  rows are known, and learning from all rows is the point of the method.

  Differs from the paper: chains may have any length, not just click and
  conversion.

  References:
    Ma et al. 2018, "Entire Space Multi-Task Model: An Effective Approach for
    Estimating Post-Click Conversion Rate".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((64,))
  tower: _common.TowerBody = experts.MLP((32,))

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return _common.serves_later_tasks(self.tasks, path)

  def check_labels(self, batch: Batch, name: str) -> None:
    """Raises ValueError unless the labels form a chain; `fit` calls this."""
    _common.check_chain_labels(self.tasks, batch, name)

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, 1] logits}, aux)`.

    `aux` is `{'gates': (), 'conditional_logits': {task: [B, 1] float32}}`, the
    a_k of each step given the step before it; the first a_k is the step's
    logit.
    """
    names = _common.check_chain(self.tasks)
    x = _common.encode(self.encoder, features, train=train)
    inputs = {f'bottom_{name}': x for name in names}
    trunks = _common.apply_copies(self, self.bottom, inputs, train=train)
    hidden = dict(zip(names, trunks.values(), strict=True))
    steps = _common.predict(self, hidden, train=train)
    first = steps[names[0]]
    log_p, log_not = jax.nn.log_sigmoid(first), jax.nn.log_sigmoid(-first)
    predictions = {names[0]: first}
    for name in names[1:]:
      log_not = jnp.logaddexp(log_not, log_p + jax.nn.log_sigmoid(-steps[name]))
      log_p = log_p + jax.nn.log_sigmoid(steps[name])
      predictions[name] = log_p - log_not
    return predictions, {'gates': (), 'conditional_logits': steps}
