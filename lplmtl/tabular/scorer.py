"""A scorer of one target, for scikit-learn's model selection."""

import dataclasses
from typing import Any

from lplmtl import tasks
from lplmtl.tabular import hints

# The metrics of which less is better: a scorer negates them.
LESS_IS_BETTER = ('log_loss', 'calibration_error', 'rmse', 'mae')
# One task of each kind of target, whose metrics `Predictor.score` returns.
_TASKS = (
  tasks.binary('a'), tasks.multiclass('a', 3), tasks.ordinal('a', 3),
  tasks.multilabel('a', 2), tasks.regression('a'), tasks.poisson('a'),
)  # fmt: skip
_SCORES = {
  *(f'neg_{name}' for name in LESS_IS_BETTER),
  *(name for task in _TASKS for name in task.metric_fns),
}.difference(LESS_IS_BETTER)


@dataclasses.dataclass(frozen=True)
class Scorer:
  """Scores one target of a fitted `Estimator`: pass it as `scoring`.

  It also takes a Pipeline whose last step is an `Estimator`. scikit-learn makes
  NaN of its errors, such as an unknown target, unless it is called with
  `error_score='raise'`.

  Attributes:
    target: the name of the target.
    metric: one of those that `Predictor.score` returns, or `neg_` and one of
      those of which less is better, as in scikit-learn; '' for the target's
      primary metric.

  Raises:
    ValueError: no kind of target has such a metric.

  Example:
    >>> Scorer('value', 'neg_rmse')
    Scorer(target='value', metric='neg_rmse')
  """

  target: str
  metric: str = ''

  def __post_init__(self) -> None:
    if self.metric in LESS_IS_BETTER:
      raise ValueError(
        f'of {self.metric!r} less is better, but a scorer must return more for '
        f"the better model: write 'neg_{self.metric}'"
      )
    if self.metric and self.metric not in _SCORES:
      near = hints.nearest(self.metric, sorted(_SCORES))
      raise ValueError(
        f'the scorer names {self.metric!r}, which is no metric{near}'
      )

  def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
    """Returns the metric on rows X with labels, or with labels y."""
    if hasattr(estimator, 'steps'):
      if len(estimator.steps) > 1:
        X = estimator[:-1].transform(X)
      estimator = estimator[-1]
    predictor = getattr(estimator, 'predictor_', None)
    known = predictor.schema.targets if predictor else {}
    if predictor and self.target not in known:
      raise ValueError(
        f'the scorer names {self.target!r}, which is not a target'
        f'{hints.nearest(self.target, known)}'
      )
    metrics = estimator.scores(X, y)[self.target]
    name = self.metric.removeprefix('neg_') or next(iter(metrics))
    if name not in metrics:
      raise ValueError(
        f'the metrics of {self.target!r} are {list(metrics)}; found '
        f'{self.metric!r}'
      )
    return -metrics[name] if self.metric.startswith('neg_') else metrics[name]
