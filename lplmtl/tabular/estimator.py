"""`Estimator`: training and prediction behind scikit-learn's interface."""

import dataclasses
import inspect
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
  targets,
  training,
  tuning,
)
from lplmtl.tabular.labels import complete
from lplmtl.tabular.predictor import Predictor
from lplmtl.tabular.schema import Schema, Target
from lplmtl.tabular.settings import Settings

# In fewer rows, values are new by chance.
_MIN_ROWS = 10
_MAX_SHOWN = 5  # columns in a warning
_OWN: dict[str, Any] = {
  'targets': None, 'schema': None, 'tune': 0, 'warm_start': False,
  'on_epoch': None,
}  # fmt: skip


def _defaults(cls: Any) -> dict[str, Any]:
  made = cls()
  return {
    field.name: getattr(made, field.name) for field in dataclasses.fields(cls)
  }


_SETTINGS, _OPTIONS = _defaults(Settings), _defaults(inference.Options)
# Every parameter with its default, which `get_params` names.
DEFAULTS: dict[str, Any] = {**_OWN, **_SETTINGS, **_OPTIONS}


class Estimator:
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
    ...   num_crosses=0, num_epochs=1)
    >>> sorted(model.fit(table).predict(table))
    ['churn', 'churn_probability', 'value']
  """

  # What `help` and editors show: every parameter, with its default.
  __signature__ = inspect.Signature(
    [
      inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD
        if name == 'targets'
        else inspect.Parameter.KEYWORD_ONLY,
        default=default,
      )
      for name, default in DEFAULTS.items()
    ]
  )
  targets: Any
  schema: Schema | None
  tune: int
  warm_start: bool
  on_epoch: training.OnEpoch | None
  missing: tuple[str, ...]
  predictor_: Predictor
  labels_: arrays.Labels | None

  def __init__(self, targets: Any = None, **options: Any) -> None:
    self.set_params(**{**DEFAULTS, 'targets': targets, **options})

  def get_params(self, deep: bool = True) -> dict[str, Any]:
    """Returns every parameter by name; there are no nested ones."""
    return {name: getattr(self, name) for name in DEFAULTS}

  def set_params(self, **params: Any) -> 'Estimator':
    """Changes parameters by name.

    Raises:
      ValueError: a name is unknown.
    """
    for name in params:
      if name not in DEFAULTS:
        raise ValueError(
          f'Estimator has no parameter {name!r}{hints.nearest(name, DEFAULTS)}'
        )
    vars(self).update(params)
    return self

  def __repr__(self) -> str:
    changed = [
      f'{name}={value!r}'
      for name, value in self.get_params().items()
      if value is not DEFAULTS[name] and repr(value) != repr(DEFAULTS[name])
    ]
    return f'Estimator({", ".join(changed)})'

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
      if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise ValueError(
          'after fit(X, y), validation must be a pair (X, y), found '
          f'{type(validation).__name__}'
        )
      others, their_y = validation
      validation, _ = arrays.join(others, their_y, names)
    settings = Settings(**{name: getattr(self, name) for name in _SETTINGS})
    start = getattr(self, 'predictor_', None) if self.warm_start else None
    options = inference.Options(**{n: getattr(self, n) for n in _OPTIONS})
    known = start.schema if start else self.schema
    numbers: Mapping[str, np.ndarray] = {}
    if validation is None:
      split = known or inference.before_split(options)
      frame, validation, numbers = training.separate(frame, split, settings)
    if known is None:
      asked = self.targets if isinstance(self.targets, Mapping) else names
      known = inference.infer(frame, asked, options)
    elif start is None:
      known = complete(known, frame)
    rows = training.encode(
      frame, known, settings, validation, start=start, numbers=numbers
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
    schema = predictor.schema
    name = target or next(iter(schema.targets))
    chosen = schema.targets.get(name)
    if (
      chosen is None
      or not chosen.classes
      or (not target and len(schema.targets) > 1)
    ):
      known = [n for n, one in schema.targets.items() if one.classes]
      raise ValueError(
        f'predict_proba gives the classes of one target, from {known}: pass '
        f'target; found {target!r}'
      )
    logits = predictor.logits(arrays.as_columns(X))[name]
    values = targets.mean_outputs(chosen, logits)
    if chosen.kind == 'binary':
      values = np.concatenate([1 - values, values], axis=1)
    return values if target else values[:, np.argsort(_classes(chosen))]

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
    from sklearn import utils  # it is the caller

    kind = self._estimator_type
    return utils.Tags(
      estimator_type=kind,
      target_tags=utils.TargetTags(required=False, multi_output=True),
      classifier_tags=utils.ClassifierTags() if kind == 'classifier' else None,
      regressor_tags=utils.RegressorTags() if kind == 'regressor' else None,
      input_tags=utils.InputTags(
        categorical=True, string=True, dict=True, allow_nan=True
      ),
    )

  @property
  def _estimator_type(self) -> str | None:
    """What scikit-learn 1.5 asks instead: the kind of a single target."""
    chosen = self._single()
    kind = chosen.kind if isinstance(chosen, Target) else chosen
    if kind in ('binary', 'multiclass', 'ordinal'):
      return 'classifier'
    return 'regressor' if kind in ('regression', 'count') else None

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
    if not isinstance(self.schema, Schema):
      raise ValueError(
        'schema must be a Schema, such as tabular.infer or Schema.from_json '
        f'returns, found {type(self.schema).__name__}'
      )
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
