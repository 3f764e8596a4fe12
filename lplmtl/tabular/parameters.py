"""What scikit-learn asks of an `Estimator` beside fit and predict.

Its parameters, for which scikit-learn is not needed, and its tags.
"""

import dataclasses
import inspect
from typing import Any, Self, TypeVar

from lplmtl.tabular import hints
from lplmtl.tabular.inference import Options
from lplmtl.tabular.settings import Settings

Record = TypeVar('Record', Settings, Options)

_OWN: dict[str, Any] = {
  'targets': None, 'schema': None, 'tune': 0, 'warm_start': False,
  'on_epoch': None,
}  # fmt: skip


def _names(cls: Any) -> list[str]:
  return [field.name for field in dataclasses.fields(cls)]


def _defaults(cls: Any) -> dict[str, Any]:
  made = cls()
  return {name: getattr(made, name) for name in _names(cls)}


# Every parameter with its default, which `get_params` names.
DEFAULTS: dict[str, Any] = {
  **_OWN,
  **_defaults(Settings),
  **_defaults(Options),
}


class Parameters:
  """What is fitted later: every parameter is an attribute of the same name."""

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

  def __init__(self, targets: Any = None, **options: Any) -> None:
    self.set_params(**{**DEFAULTS, 'targets': targets, **options})

  def get_params(self, deep: bool = True) -> dict[str, Any]:
    """Returns every parameter by name; there are no nested ones."""
    return {name: getattr(self, name) for name in DEFAULTS}

  def set_params(self, **params: Any) -> Self:
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

  def make(self, cls: type[Record]) -> Record:
    """Returns the Settings, or the Options, that the parameters say."""
    return cls(**{name: getattr(self, name) for name in _names(cls)})

  def __repr__(self) -> str:
    changed = [
      f'{name}={value!r}'
      for name, value in self.get_params().items()
      if value is not DEFAULTS[name] and repr(value) != repr(DEFAULTS[name])
    ]
    return f'{type(self).__name__}({", ".join(changed)})'


def estimator_type(kind: str | None) -> str | None:
  """Returns what scikit-learn calls an estimator of one kind of target."""
  if kind in ('binary', 'multiclass', 'ordinal'):
    return 'classifier'
  return 'regressor' if kind in ('regression', 'count') else None


def sklearn_tags(kind: str | None) -> Any:
  """Returns the tags of an estimator of this type."""
  from sklearn import utils  # it is the caller

  return utils.Tags(
    estimator_type=kind,
    target_tags=utils.TargetTags(required=False, multi_output=True),
    classifier_tags=utils.ClassifierTags() if kind == 'classifier' else None,
    regressor_tags=utils.RegressorTags() if kind == 'regressor' else None,
    input_tags=utils.InputTags(
      categorical=True, string=True, dict=True, allow_nan=True
    ),
  )
