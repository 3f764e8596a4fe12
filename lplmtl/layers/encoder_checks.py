"""Checks of a `TabularEncoder`'s settings and of the features that it reads.

All but `check_ids` look at shapes only: under jit they run while a program is
traced, and cost nothing later.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lplmtl import _checks
from lplmtl.layers import composed

_SHAPES = {
  'categories': '[B, C] ids,',
  'numeric': '[B, N],',
  'hashed': '[B, H, 2],',
}
_EXAMPLE = '(tables.num_categories, 4, num_buckets=tables.num_buckets)'


def check_settings(encoder: Any) -> None:
  """Raises ValueError for a field of a TabularEncoder that is out of range."""
  for name in ('num_categories', 'num_buckets', 'num_pieces'):
    _check_sizes(name, getattr(encoder, name))
  least = {'embed_dim': 1, 'num_ordered': 0, 'multiple_of': 1}
  # Also where no column is large enough to be composed: one may be tomorrow.
  for name, low in {**least, 'compose_above': 0, 'collisions': 1}.items():
    value = getattr(encoder, name)
    if not _checks.is_whole_number(value, low):
      raise ValueError(
        f'{name} of a TabularEncoder must be a whole number of at least {low}, '
        f'found {value!r}'
      )
  num_columns = len(encoder.num_categories)
  if encoder.num_ordered > num_columns:
    raise ValueError(
      f'num_ordered must be from 0 to the {num_columns} columns, found '
      f'{encoder.num_ordered}'
    )
  if encoder.compose_by not in (None, *composed.OPERATIONS):
    raise ValueError(
      f'compose_by must be one of {", ".join(composed.OPERATIONS)}, or None, '
      f'found {encoder.compose_by!r}'
    )


def _check_sizes(name: str, sizes: Any) -> None:
  is_tuple = isinstance(sizes, tuple | list)
  if not is_tuple or not all(map(_checks.is_whole_number, sizes)):
    raise ValueError(
      f'{name} of a TabularEncoder must be a tuple of whole numbers of at '
      f'least 1, one for each column, such as tables.{name}; found '
      f'{sizes!r:.80}'
    )


def check_names(encoder: Any, features: Any, name: str) -> None:
  """Raises ValueError unless features hold what is read, and nothing else.

  What an encoder was not told of it would ignore: a model would learn nothing
  from hashed columns, without a word.

  Args:
    encoder: a TabularEncoder.
    features: arrays, which may be traced.
    name: what to call them in the message.
  """
  names = [
    'categories',
    'numeric',
    *(['hashed'] if encoder.num_buckets else []),
  ]
  is_dict = isinstance(features, Mapping)
  if not is_dict or not all(x in features for x in names):
    found = list(features) if is_dict else 'an array'
    shapes = ' and '.join(f'{name!r}, {_SHAPES[name]}' for name in names)
    raise ValueError(
      f'{name} must be a dict of {shapes} for a TabularEncoder; found {found}'
    )
  others = [one for one in features if one not in _SHAPES]
  if others:
    raise ValueError(
      f'a TabularEncoder reads {", ".join(map(repr, _SHAPES))} of {name}; '
      f'found also {others}: leave them out, or read them by an encoder of '
      'your own'
    )
  if 'hashed' in features:
    _check_hashed(encoder, np.shape(features['hashed']))


def _check_hashed(encoder: Any, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless there are the hashed columns of an encoder."""
  num_hashed = len(encoder.num_buckets)
  if len(shape) != 3 or shape[1:] != (num_hashed, 2):
    raise ValueError(
      f'the encoder expects hashed columns of shape [B, {num_hashed}, 2], '
      f'found {shape}: pass TabularEncoder{_EXAMPLE}'
    )


def check_shapes(encoder: Any, features: Mapping[str, Any]) -> None:
  """Raises ValueError unless categories and numbers have their columns."""
  num_columns = len(encoder.num_categories)
  for name, columns in (('categories', num_columns), ('numeric', None)):
    shape = np.shape(features[name])
    if len(shape) != 2 or columns not in (None, shape[1]):
      width = 'N' if columns is None else columns
      raise ValueError(
        f'the encoder expects {name} of shape [B, {width}], found {shape}'
      )
  found = np.shape(features['numeric'])[1]
  if found < len(encoder.num_pieces):
    raise ValueError(
      f'the encoder expects numeric with {len(encoder.num_pieces)} positions, '
      f'as num_pieces says, found {found} columns: encode with the tables that '
      'num_pieces comes from'
    )


def check_ids(encoder: Any, features: Mapping[str, Any], name: str) -> None:
  """Raises ValueError for an id that is not within its column's vocabulary.

  Args:
    encoder: a TabularEncoder.
    features: arrays, not traced.
    name: what to call them in the message.
  """
  checked = [('categories', 2, encoder.num_categories)]
  if encoder.num_buckets:
    checked.append(('hashed', 3, encoder.num_buckets))
  for part, ndim, sizes in checked:
    ids = np.asarray(features[part])
    if ids.ndim != ndim or not ids.size:
      continue  # `check_shapes` complains
    axes = (0, *range(2, ndim))
    lowest, highest = ids.min(axis=axes), ids.max(axis=axes)
    columns = zip(sizes, lowest, highest, strict=False)
    for i, (size, low, high) in enumerate(columns):
      if low < 0 or high >= size:
        raise ValueError(
          f'{name}[{part!r}] must be from 0 to {size - 1} in column {i}, '
          f'found {low} to {high}'
        )
