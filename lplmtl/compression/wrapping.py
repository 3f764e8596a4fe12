"""Models that compute the parameters of another model from their own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lplmtl.types import PyTree

# What training and checks look for in a model, besides `tasks`, `init` and
# `apply`. A wrapper has those that the model inside has.
_OPTIONAL = ('encoder', 'check_labels', 'represent', 'predict')


@dataclasses.dataclass(frozen=True)
class Wrapped:
  """A model whose parameters are a function of others.

  A base class: `apply` evaluates the inner model at `weights(params)`, so that
  training learns what the function takes. `fit`, `predict`, balancers of any
  scope and `checkpoint` treat it like the model inside.

  Attributes:
    model: the model inside, see `lplmtl.types.Model`.
  """

  model: Any

  def weights(self, params: PyTree) -> PyTree:
    """Returns the parameters of the model inside."""
    raise NotImplementedError

  def split(self, params: PyTree) -> PyTree:
    """Returns parameters of this model from those that the inner one draws."""
    return params

  def inner_path(self, path: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the path of the inner parameter that a parameter is part of."""
    return path

  @property
  def tasks(self) -> Any:
    """The tasks of the model inside."""
    return self.model.tasks

  def init(self, rngs: Any, features: PyTree) -> dict[str, Any]:
    """Returns `{'params': parameters}`."""
    return {'params': self.split(self.model.init(rngs, features)['params'])}

  def apply(
    self, variables: Mapping[str, Any], *args: Any, **options: Any
  ) -> Any:
    """Applies the model inside, also with `method='represent'`."""
    inner = {**variables, 'params': self.weights(variables['params'])}
    return self.model.apply(inner, *args, **options)

  def __getattr__(self, name: str) -> Any:
    """Returns what only some models have."""
    if name == 'is_shared':
      is_shared = self.model.is_shared
      return lambda path: is_shared(self.inner_path(path))
    if name in _OPTIONAL:
      return getattr(self.model, name)
    raise AttributeError(f'{type(self).__name__!r} has no attribute {name!r}')
