"""The types on which everything else is built: tasks, batches, balancers.

Letters used everywhere: B rows of a batch, T tasks, E experts, D input
features, H expert width, K outputs of a task, S seeds.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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
  """A prediction target, with its loss and metrics.

  Attributes:
    name: identifies the task in labels, predictions, parameters and results.
    loss_fn: `(predictions [B, ..., K], labels [B, ...]) -> [B]` float, one loss
      per row, in nats for cross-entropies.
    num_outputs: K, the number of outputs of the task's head.
    metric_fns: `{name: (predictions, labels, where [B] bool) -> scalar}`. The
      first is the task's primary metric, which is used to compare epochs:
      larger must be better.
    label_range: smallest and largest valid label, which `fit` checks; None if
      any label is valid.

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
      raise ValueError(
        f"a task's name must be a non-empty string, found {self.name!r}"
      )
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
        f'task {self.name!r}: num_outputs must be a whole number of at least '
        f'1, found {self.num_outputs!r}'
      )
    if 'loss' in self.metric_fns:
      raise ValueError(
        f'task {self.name!r}: found a metric called "loss", which in results '
        'is the mean of loss_fn: give it another name'
      )


class Batch(NamedTuple):
  """Rows to train on or to score.

  Attributes:
    features: pytree of `[B, ...]`.
    labels: `{task: pytree of [B, ...]}`.
    where: `{task: [B] bool}`, True where the row has a label for the task. A
      task that it does not name has a label in every row, as does every task
      if `where` is None. Labels under False are ignored, even NaN.
    weights: optional `[B]` float >= 0, the weight of each row in the losses; or
      `{task: [B]}`, where the rows of a task that it does not name have weight
      1. Metrics do not use weights.

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
  weights: Array | Mapping[str, Array] | None = None


class Source(Protocol):
  """Rows that `fit` reads in chunks, in the place of a Batch in memory.

  An epoch is read in equal chunks, one program serves them all. Each chunk has
  the same number of rows from each of W logical shards, and so has each batch:
  `batch_size / W` rows of each shard, shuffled within the chunk. W depends on
  neither devices nor processes, so these do not change a batch. Where a run has
  come to is an epoch and a step only: `chunk` is a pure function, and several
  threads may call it at once.
  """

  @property
  def num_rows(self) -> int:
    """All rows; those in no chunk of an epoch are others in the next."""

  @property
  def num_chunks(self) -> int:
    """The chunks of an epoch."""

  @property
  def chunk_rows(self) -> int:
    """The rows of each chunk, a multiple of `num_shards`."""

  @property
  def num_shards(self) -> int:
    """W, the logical shards."""

  @property
  def fingerprint(self) -> str:
    """A text that differs if other rows, or another order, would be read."""

  @property
  def example(self) -> Batch:
    """One or more rows, whose structure, shapes and dtypes all chunks have."""

  def chunk(self, epoch: int, number: int, shards: Sequence[int]) -> Batch:
    """Returns the rows of some shards of a chunk, as NumPy arrays.

    Args:
      epoch: from 0; no row occurs twice in an epoch.
      number: of the chunk in the epoch, from 0.
      shards: from 0 to W - 1, increasing.

    Returns:
      `chunk_rows / W` rows of each shard, in the order of `shards`. Nothing
      writes to the arrays later.
    """

  def scan(self, shards: Sequence[int]) -> Iterator[Batch]:
    """Yields each row of some shards once, in pieces of any number of rows.

    In the same order each time. All shards together hold all rows.
    """


class Model(Protocol):
  """What training requires of a model: any architecture here, or your own."""

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

    `aux` is a dict with `gates`, a tuple with one `{gate: {pool: [B, E_p]}}`
    per level, the gate weights of the experts in each pool, and
    optionally `penalty`, a scalar that is added to the balanced loss.
    """


class Balancer(NamedTuple):
  """Combines several losses into one: a pair of pure functions.

  Attributes:
    init: `(key, num_tasks) -> state`.
    update: `(losses [T], state, *, gramian=None, present=None) ->
      (weights [T], state)`. Training passes `present`, `[T] bool`, True for
      the tasks with a label in the batch, and, if `needs_gramian`, `gramian`,
      `[T, T]`, the inner products of the task gradients. A step follows the
      gradient of `sum(weights * losses)` with the weights held constant.
      Scan-safe: the new state has the structure and dtypes of the old one.
    needs_losses: whether the weights depend on this step's losses. If they
      depend only on the state, a step may process its rows in microbatches.
    needs_gramian: whether `update` requires the Gramian. A step then takes T
      pull-backs instead of one.
    scope: what the weights act on: `all` parameters, or only those that are
      `shared` between tasks, while the others keep their plain gradient. The
      Gramian is computed over the same parameters. With `representation` the
      weights also act on the shared parameters, but the Gramian is that of the
      gradients with respect to the shared representation of the rows (the upper
      bound of Sener & Koltun, MGDA-UB): one pull-back through the trunk instead
      of T. It ignores the paths by which shared parameters affect predictions
      other than through the representation, such as an encoder that gates read.
      It requires a model with `represent(features)` and
      `predict(representation, features)`: `SharedBottom`, `OMoE`, `MMoE`. In
      your own training loop, the gradients that you pass define the scope.
    after: optional `(losses_before [T], losses_after [T], state, *, present) ->
      state`, called with the losses of the same rows before and after the step,
      under the same dropout. It costs a second forward pass.
  """

  init: Callable[[Array, int], PyTree]
  update: Callable[..., tuple[Array, PyTree]]
  needs_losses: bool = True
  needs_gramian: bool = False
  scope: Scope = 'all'
  after: Callable[..., PyTree] | None = None


class Aggregator(NamedTuple):
  """Combines several gradients into one, for methods that need coordinates.

  The Gramian of a `Balancer` holds inner products only. An aggregator is
  accepted wherever a balancer is.

  Attributes:
    init: `(key, params, num_tasks) -> state`; `params` has None in place of the
      parameters outside the scope.
    update: `(gradients, losses [T], state, *, present=None) -> (gradient,
      weights [T], state)`. The gradients are a pytree like `params`, with a
      leading T axis on each leaf. The weights, how much each task contributed,
      are only reported. Scan-safe, and no gradient flows through it.
    scope: which parameters it acts on: `all`, or those that are `shared`
      between tasks, while the others keep their plain gradient.
    needs_losses: as in `Balancer`.
    needs_gramian: as in `Balancer`; False for every aggregator here.
    after: as in `Balancer`.
  """

  init: Callable[[Array, PyTree, int], PyTree]
  update: Callable[..., tuple[PyTree, Array, PyTree]]
  scope: Literal['all', 'shared'] = 'shared'
  needs_losses: bool = True
  needs_gramian: bool = False
  after: Callable[..., PyTree] | None = None
