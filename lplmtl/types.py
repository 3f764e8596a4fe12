"""The shapes that everything else speaks of: tasks, batches, balancers.

Letters used everywhere: B rows of a batch, T tasks, E experts, D input
features, H expert width, K outputs of a task, S seeds.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import jax

Array = jax.Array
PyTree = Any
LossFn = Callable[[Array, Any], Array]
MetricFn = Callable[[Array, Any, Array], Array]
Scope = Literal['all', 'shared', 'representation']
SCOPES = get_args(Scope)


@dataclasses.dataclass(frozen=True)
class Task:
  """One thing to predict.

  Attributes:
    name: names the task in labels, predictions, parameters and results.
    loss_fn: `(predictions [B, ..., K], labels [B, ...]) -> [B]` float, the loss
      of each row, in nats for cross-entropies.
    num_outputs: K, the number of outputs of the task's head.
    metric_fns: `{name: (predictions, labels, where [B] bool) -> scalar}`. The
      first one is the task's primary metric, by which epochs are compared:
      larger must be better.
    label_range: smallest and largest label that makes sense, None for any;
      `fit` refuses others.

  Example:
    >>> from lplmtl import losses
    >>> Task('rating', losses.half_squared_error).num_outputs
    1
  """

  name: str
  loss_fn: LossFn
  num_outputs: int = 1
  metric_fns: Mapping[str, MetricFn] = dataclasses.field(
    default_factory=dict, hash=False
  )
  label_range: tuple[float, float] | None = None

  def __post_init__(self) -> None:
    if not isinstance(self.name, str) or not self.name:
      raise ValueError(f'a task needs a name, a text; found {self.name!r}')
    if not callable(self.loss_fn):
      raise ValueError(
        f'task {self.name!r}: loss_fn must be a function, such as '
        f'losses.binary_cross_entropy; found {self.loss_fn!r}'
      )
    is_dict = isinstance(self.metric_fns, Mapping)
    if not is_dict or not all(map(callable, self.metric_fns.values())):
      raise ValueError(
        f'task {self.name!r}: metric_fns must be a dict of functions, found '
        f'{self.metric_fns!r}'
      )
    if not hasattr(self.num_outputs, '__index__') or self.num_outputs < 1:
      raise ValueError(
        f'task {self.name!r}: num_outputs must be at least 1, a whole number; '
        f'found {self.num_outputs!r}'
      )
    if 'loss' in self.metric_fns:
      raise ValueError(
        f'task {self.name!r}: a metric cannot be called "loss", the name of '
        "the loss_fn's mean in every result: give it another name"
      )


class Batch(NamedTuple):
  """Rows to learn from or to score.

  Attributes:
    features: pytree of `[B, ...]`.
    labels: `{task: pytree of [B, ...]}`.
    where: `{task: [B] bool}`, True where the row has a label for the task; a
      task that is not named (or `where=None`) has all its labels. What stands
      under False, a NaN too, has no effect.
    weights: optional `[B]` float >= 0, the weight of each row in the losses.

  Example:
    >>> import numpy as np
    >>> features = np.zeros((2, 8), np.float32)
    >>> batch = Batch(features, labels={'click': np.array([0, 1])},
    ...               where={'click': np.array([True, False])})
    >>> batch.features.shape
    (2, 8)
  """

  features: PyTree
  labels: Mapping[str, Any]
  where: Mapping[str, Array] | None = None
  weights: Array | None = None


class Model(Protocol):
  """What training asks of a model: every architecture here, or your own."""

  @property
  def tasks(self) -> Sequence[Task]:
    """The tasks that it predicts, in the order of every `[T]`."""

  def init(self, rngs: Any, features: PyTree) -> Mapping[str, Any]:
    """Returns `{'params': parameters}`."""

  def apply(
    self,
    variables: Mapping[str, Any],
    features: PyTree,
    *,
    train: bool = False,
    rngs: Any = None,
  ) -> Any:
    """Returns `({task: [B, K] logits}, aux)`.

    `aux` is a dict: `gates`, a tuple with one `{selector: {pool: [B, E_p]}}`
    per level, the weights of the experts by the pools that hold them,
    and optionally `penalty`, a scalar that is added to the balanced loss.
    """


class Balancer(NamedTuple):
  """How several losses become one: a pair of pure functions.

  Attributes:
    init: `(key, num_tasks) -> state`.
    update: `(losses [T], state, *, gramian=None, present=None) ->
      (weights [T], state)`. Training hands over `present`, `[T] bool`, True for
      the tasks with a label in the batch, and `gramian`, `[T, T]`, the inner
      products of the task gradients, to those that need it. The gradient is
      that of `sum(weights * losses)` with the weights held constant. Scan-safe:
      the new state has the structure and dtypes of the old one.
    needs_losses: whether the weights depend on this step's losses. Where they
      come from the state alone, a step may work through its rows in parts.
    needs_gramian: whether `update` must be given the Gramian. A step then
      takes T pull-backs instead of one.
    scope: what the weights act on: `all` parameters, or only those that are
      `shared` between tasks, the others keeping their plain gradient. The
      Gramian is that of the same parameters. With `representation` the weights
      act on shared parameters too, but the Gramian is that of the gradients at
      the shared representation of the rows (Sener & Koltun's upper bound, MGDA-
      UB): one pull-back through the trunk instead of T. It leaves out the paths
      by which shared parameters act on predictions beside the representation,
      such as an encoder that gates read. For models with `represent(features)`
      and `predict(representation, features)`: `SharedBottom`, `OMoE`, `MMoE`.
      In a loop of your own the gradients that you take are the scope.
    after: optional `(losses_before [T], losses_after [T], state, *, present) ->
      state`: the losses of the same rows, with the same dropout, before and
      after the step; a second forward pass.
  """

  init: Callable[[Array, int], PyTree]
  update: Callable[..., tuple[Array, PyTree]]
  needs_losses: bool = True
  needs_gramian: bool = False
  scope: Scope = 'all'
  after: Callable[..., PyTree] | None = None


class Aggregator(NamedTuple):
  """How several gradients become one, where a Gramian does not tell enough.

  It stands wherever a `Balancer` may.

  Attributes:
    init: `(key, params, num_tasks) -> state`; of the parameters in the scope,
      None in the place of the others.
    update: `(gradients, losses [T], state, *, present=None) -> (gradient,
      weights [T], state)`. The gradients are a pytree like `params`, each leaf
      with a leading T; the weights say how much each task counted, for reports
      alone. Scan-safe, and no gradient flows through it.
    scope: which parameters: `all`, or those that are `shared` between tasks.
      The others keep their plain gradient.
    needs_losses: as a Balancer's, and so are the next two.
    needs_gramian: whether it is given one; no aggregator here is.
    after: optional, what wants the losses after the step.
  """

  init: Callable[[Array, PyTree, int], PyTree]
  update: Callable[..., tuple[PyTree, Array, PyTree]]
  scope: Literal['all', 'shared'] = 'shared'
  needs_losses: bool = True
  needs_gramian: bool = False
  after: Callable[..., PyTree] | None = None
