"""`Estimator`: training and prediction behind scikit-learn's interface."""

import pathlib
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from lplmtl.tabular import (
  arrays,
  hints,
  inference,
  labels,
  parameters,
  targets,
  training,
  tuning,
)
from lplmtl.tabular.predictor import Predictor
from lplmtl.tabular.preparation import prepare
from lplmtl.tabular.schema import Schema, Target, check_is_schema
from lplmtl.tabular.settings import Settings

# In fewer rows, values are new by chance.
_MIN_ROWS = 10
_MAX_SHOWN = 5  # columns in a warning


class Estimator(parameters.Parameters):
  """Learns all targets of a table in one model; scikit-learn's interface.

  A thin wrapper of `infer`, `tune`, `train` and `Predictor`. What goes in comes
  out: after `fit(frame)`, where the frame holds the targets, `predict` returns
  a frame of named predictions; after `fit(X, y)` it returns an array like `y`,
  as scikit-learn's own functions expect.

  `clone`, `cross_val_score`, `GridSearchCV` and a `Pipeline`'s last step work;
  `scoring=Scorer('churn')` scores one of several targets.

  Args:
    targets: the names of the target columns, one name, or `{name: kind}` with
      kinds such as 'binary', 'multiclass', 'regression', 'count'.
    schema: a `Schema` in place of the inference; the options of `Options` then
      do not apply.
    tune: how many settings to try first; see `lplmtl.tabular.tune`.
    warm_start: whether a further `fit` continues with the parameters, the
      schema and the tables of the one before.
    on_epoch: called with each epoch's record, such as `progress_bar` provides.
    **options: the fields of `Settings` and of `Options`, by name.

  Attributes:
    predictor_: the Predictor, once fitted.
    classes_: of a single target with classes, its classes in sorted order.

  Raises:
    ValueError: an option has an unknown name.

  Example:
    >>> import lplmtl
    >>> from lplmtl import data, tabular
    >>> table = data.customers(200)
    >>> model = tabular.Estimator(
    ...   ['churn', 'value'], architecture=lplmtl.SharedBottom, widths=(4,),
    ...   tower_widths=(), num_epochs=1, num_seeds=1)
    >>> sorted(model.fit(table).predict(table))
    ['churn', 'churn_probability', 'value']
  """

  targets: Any
  schema: Schema | None
  tune: int
  warm_start: bool
  on_epoch: training.OnEpoch | None
  predictor_: Predictor
  labels_: arrays.Labels | None

  def fit(
    self, X: Any, y: Any = None, *, validation: Any = None
  ) -> 'Estimator':
    """Infers the schema, tunes if asked to, and trains.

    Args:
      X: a DataFrame or a dict of columns, with the targets unless `y` holds
        them; or an array `[N, D]`, with `y`.
      y: the targets, `[N]`, `[N, T]` or named columns; or None.
      validation: rows that choose the epoch: a frame, or `(X, y)` with `y`;
        None splits them off.

    Returns:
      The estimator.

    Raises:
      ValueError: see `lplmtl.tabular.train`.
    """
    self._check_tune()
    names = arrays.label_names(self._asked(), y)
    frame, self.labels_ = arrays.join(X, y, names)
    if validation is not None and y is not None:
      validation = arrays.join_pair(validation, names)
    start = getattr(self, 'predictor_', None) if self.warm_start else None
    settings, options = self.make(Settings), self.make(inference.Options)

    def infer(schema: Schema, rows: Any) -> Schema:
      asked = self.targets if isinstance(self.targets, Mapping) else names
      return inference.infer(rows, asked, options)

    known = start.schema if start else self.schema
    rows = prepare(
      frame,
      known or inference.before_split(options),
      settings,
      validation,
      start=start,
      complete=labels.complete if known else infer,
    )
    if self.tune:
      settings = tuning.tune_rows(rows, settings, self.tune).settings
    self.predictor_ = training.train_rows(
      rows, settings, on_epoch=self.on_epoch, start=start
    )
    return self

  def predict(self, X: Any) -> Any:
    """Predicts every target of every row; see `Predictor.predict`.

    Returns:
      After `fit(frame)` a DataFrame, or `{name: [N]}` for a dict; after
      `fit(X, y)` the classes or numbers, an array of the shape of `y`.

    Warns:
      UserWarning: in ten rows or more, most values of a category were never
        seen in training; `Predictor.unseen` counts them all.
    """
    predictor = self._fitted()
    frame = arrays.as_columns(X)
    features = predictor.encode(frame)
    _warn_of_new(predictor.tables.unseen(features), len(features['numeric']))
    found = predictor.decode(frame, features)
    if self.labels_ is None:
      return found
    return self.labels_.restore(found, predictor.schema)

  def predict_proba(self, X: Any, target: str = '') -> np.ndarray:
    """Returns `[N, K]`, the probabilities of `classes_`, of a single target.

    Args:
      X: rows.
      target: its name, if there are several; the classes then are in the order
        of `targets.ordered_classes`.

    Raises:
      ValueError: the target is not one of those with classes.
    """
    predictor = self._fitted()
    known = predictor.schema.targets
    name = target or (next(iter(known)) if len(known) == 1 else '')
    if name not in known or not known[name].classes:
      raise ValueError(
        'predict_proba gives the classes of one target, from '
        f'{[n for n, one in known.items() if one.classes]}: pass target; found '
        f'{target!r}'
      )
    values = predictor.probabilities(arrays.as_columns(X), name)
    return values if target else values[:, np.argsort(_classes(known[name]))]

  @property
  def classes_(self) -> np.ndarray:
    """The classes of a single target, `[K]`, in sorted order."""
    chosen = self._single()
    if not isinstance(chosen, Target) or not chosen.classes:
      raise AttributeError('only a fitted single target has classes_')
    return np.sort(_classes(chosen))

  def score(self, X: Any, y: Any = None) -> float:
    """Returns the mean of the targets' primary metrics; more is better.

    These are the area under the ROC curve of a binary target, the accuracy of
    more classes, and R^2 of a number; see `scores` for the others.

    Args:
      X: rows, with the targets unless `y` holds them.
      y: as for `fit`.
    """
    scores = self.scores(X, y).values()
    return float(np.mean([next(iter(metrics.values())) for metrics in scores]))

  def scores(self, X: Any, y: Any = None) -> dict[str, dict[str, float]]:
    """Returns every metric of every target; see `Predictor.score`."""
    frame, _ = arrays.join(X, y, arrays.label_names(self._asked(), y))
    return self._fitted().score(frame)

  def save(
    self,
    directory: str | pathlib.Path,
    *,
    modules: tuple[ModuleType, ...] = (),
  ) -> None:
    """Writes a model folder for `lplmtl.tabular.load`; see `Predictor.save`."""
    self._fitted().save(directory, modules=modules)

  def __sklearn_tags__(self) -> Any:
    """Returns what scikit-learn, from release 1.6 on, asks of an estimator."""
    return parameters.sklearn_tags(self._estimator_type)

  @property
  def _estimator_type(self) -> str | None:
    """What scikit-learn 1.5 asks instead: the kind of a single target."""
    chosen = self._single()
    return parameters.estimator_type(
      chosen.kind if isinstance(chosen, Target) else chosen
    )

  def _single(self) -> Any:
    """Returns the only target or its kind, if that is known; or None."""
    fitted = getattr(self, 'predictor_', None)
    known = fitted.schema.targets if fitted else self._asked()
    if not isinstance(known, Mapping) or len(known) != 1:
      return None
    return next(iter(known.values()))

  def _asked(self) -> Any:
    if self.schema is None:
      return self.targets
    check_is_schema(self.schema)
    return self.schema.targets

  def _check_tune(self) -> None:
    is_whole = isinstance(self.tune, int | np.integer)
    if not is_whole or isinstance(self.tune, bool) or self.tune < 0:
      raise ValueError(
        'tune must be a whole number, how many settings to try; found '
        f'{self.tune!r}'
      )

  def _fitted(self) -> Predictor:
    if not hasattr(self, 'predictor_'):
      raise ValueError('this Estimator is not fitted yet: call fit first')
    return self.predictor_


def _warn_of_new(unseen: Mapping[Any, int], num_rows: int) -> None:
  most = [name for name, n in unseen.items() if n > num_rows / 2]
  if not most or num_rows < _MIN_ROWS:
    return
  counts = ', '.join(
    f'{hints.quoted(name)} in {unseen[name]:,}' for name in most[:_MAX_SHOWN]
  )
  more = f' and {len(most) - _MAX_SHOWN} more' if most[_MAX_SHOWN:] else ''
  warnings.warn(
    f'most values of these columns were never seen in training: {counts}{more} '
    f'of {num_rows:,} rows; make sure that they are written as they were there',
    stacklevel=3,
  )


def _classes(target: Target) -> np.ndarray:
  """Returns the classes of a target in the order of its outputs."""
  return np.asarray(targets.ordered_classes(target))
