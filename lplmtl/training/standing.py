"""Models for some of whose tables something else stands."""

from collections.abc import Callable, Mapping
from typing import Any

from lplmtl.layers import lookup
from lplmtl.types import Array, Model

Path = tuple[str, ...]  # the names along the way to a parameter


class Standing:
  """A model for some of whose tables something else stands.

  In its parameters, the numbers of what stands are in place of a table.
  """

  def __init__(
    self,
    model: Model,
    tables: Mapping[Path, Any],
    stand: Callable[[Path, Array], Any],
  ):
    """Wraps a model.

    Args:
      model: a Linen module.
      tables: the shapes and dtypes of the tables.
      stand: makes `lookup.Rows` or a `lookup.Part` of what the parameters hold.
    """
    self._model, self._tables, self._stand = model, tables, stand

  def __getattr__(self, name: str) -> Any:
    return getattr(self._model, name)

  def apply(
    self, variables: Mapping[str, Any], *args: Any, **kwargs: Any
  ) -> Any:
    """Applies the model."""
    params = variables['params']
    stands: dict[str, Any] = {}
    for path, table in self._tables.items():
      stands = replace(stands, path, self._stand(path, at(params, path)))
      params = replace(params, path, table)
    variables = {'params': params, lookup.STANDS: stands}
    try:
      return self._model.apply(variables, *args, **kwargs)
    except (AttributeError, TypeError) as error:
      if 'ShapeDtypeStruct' not in str(error):
        raise
      names = ['/'.join(path) for path in self._tables]
      raise ValueError(
        'a table that sparse.lazy trains may only be looked up, by '
        f'layers.lookup.take; found another use of one of {names}'
      ) from error


def at(tree: Any, path: Path) -> Any:
  """Returns what nested dicts hold at a path."""
  for key in path:
    tree = tree[key]
  return tree


def replace(tree: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
  """Returns nested dicts with another value, which may be new, at a path."""
  key, *rest = path
  if rest:
    value = replace(tree.get(key, {}), tuple(rest), value)
  return {**tree, key: value}
