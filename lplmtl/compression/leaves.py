"""Parameters by name, and which of them are matrices."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from lplmtl.types import PyTree

# Chooses parameters by name, such as `lambda name: 'tower' in name`.
Choice = Callable[[str], bool]


def names(params: PyTree) -> dict[str, Any]:
  """Returns the leaves of a pytree by name.

  Example:
    >>> import jax.numpy as jnp
    >>> list(names({'bottom': {'layer_0': {'kernel': jnp.ones((2, 3))}}}))
    ['bottom/layer_0/kernel']
  """
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  return {_join(path): leaf for path, leaf in leaves}


def is_matrix(name: str, leaf: Any) -> bool:
  """Returns whether a parameter is a matrix, or a stack of them.

  These are the kernels of layers and gates, `[D, H]`, those of E experts,
  `[E, D, H]`, and embeddings. The biases and scales of a stack of experts are
  `[E, H]`, but no matrices: they have few numbers, and a model is sensitive to
  them.
  """
  return leaf.ndim > 1 and name.split('/')[-1] not in ('bias', 'scale')


def map_named(
  fn: Callable[..., Any], params: PyTree, *others: PyTree
) -> PyTree:
  """Maps `fn(name, leaf, *leaves of others)` over a pytree."""
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: fn(_join(path), *leaves), params, *others
  )


def replace(
  tree: PyTree, changes: Mapping[str, Callable[[Any], Any]]
) -> PyTree:
  """Returns nested dicts in which functions have replaced some of the parts.

  Args:
    tree: nested dicts.
    changes: `{name: part -> part}`; a part is a leaf or a dict.

  Raises:
    KeyError: the tree has no part of that name.
  """
  for name, change in changes.items():
    tree = _replaced(tree, name.split('/'), change)
  return tree


def _replaced(
  tree: PyTree, path: list[str], change: Callable[[Any], Any]
) -> PyTree:
  if not path:
    return change(tree)
  if not isinstance(tree, Mapping) or path[0] not in tree:
    raise KeyError(path[0])
  return {**tree, path[0]: _replaced(tree[path[0]], path[1:], change)}


def _join(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')
