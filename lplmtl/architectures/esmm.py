"""Entire-space multi-task model (Ma et al. 2018), for tasks in a chain."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.architectures import common
from lplmtl.layers import experts
from lplmtl.types import Batch, Task


class ESMM(nn.Module):
  """Probabilities along a chain, such as view, click, buy, multiply.

  Step k of the chain happens only after step k - 1. Over all rows, its label is
  1 where all steps up to k have happened, and its probability is (eq. 1)

      p_k = prod_{j<=k} sigmoid(a_j),  a_j = h_j(f_j(x))

  so that no step is learned from a biased choice of rows. The returned logits
  are log p_k - log(1 - p_k), worked out in log space: log p_k is a sum, and

      1 - p_k = (1 - p_{k-1}) + p_{k-1} sigmoid(-a_k)

  What the method is for, the probability of step k among the rows that came as
  far as step k - 1 (the paper's p(conversion | click)), is sigmoid(a_k): its
  logits a_k are `aux['conditional_logits']`. Take them there: p_k / p_{k-1}
  may be 0 / 0.

  Shared parameters: `encoder`, and the trunk and tower of every step but the
  last, which all later steps multiply by. Their number: encoder and T trunks
  and towers.

  Attributes:
    tasks: T binary tasks in the order of the chain.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    bottom: template of the trunks f_k, `bottom_<task>`.
    tower: template of the body of each tower h_k; its head is added.

  Leave no row out for want of an earlier step (`Batch.where`): the labels of
  all rows are known, which is the point.

  Differs from the paper: chains of any length instead of click and conversion.

  References:
    Ma et al. 2018, "Entire Space Multi-Task Model: An Effective Approach for
    Estimating Post-Click Conversion Rate".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((64,))
  tower: common.Tower = experts.MLP((32,))

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    return common.serves_later_tasks(self.tasks, path)

  def check_labels(self, batch: Batch, name: str) -> None:
    """Refuses rows that are no chain; `fit` asks."""
    common.check_chain_labels(self.tasks, batch, name)

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, 1] logits}, aux)`.

    `aux` is `{'gates': (), 'conditional_logits': {task: [B, 1] float32}}`, each
    step's a_k, given the step before it; the first step's is its own logit.
    """
    names = common.check_chain(self.tasks)
    x = common.encode(self.encoder, features, train=train)
    hidden = {
      name: common.own_copy(self, self.bottom, f'bottom_{name}', x, train=train)
      for name in names
    }
    steps = common.predict(self.tasks, self.tower, hidden, train=train)
    first = steps[names[0]]
    log_p, log_not = jax.nn.log_sigmoid(first), jax.nn.log_sigmoid(-first)
    predictions = {names[0]: first}
    for name in names[1:]:
      log_not = jnp.logaddexp(log_not, log_p + jax.nn.log_sigmoid(-steps[name]))
      log_p = log_p + jax.nn.log_sigmoid(steps[name])
      predictions[name] = log_p - log_not
    return predictions, {'gates': (), 'conditional_logits': steps}
