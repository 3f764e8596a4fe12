"""The encoders inside a model, whatever its architecture."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lplmtl import _checks
from lplmtl.tables import Tables
from lplmtl.types import PyTree

# The fields in which models keep a model or an encoder inside; a wrapper has
# the encoder of its model, too.
_INSIDE = ('model', 'encoder')


def fold_steps(model: Any, params: PyTree) -> tuple[Any, PyTree]:
  """Adds the steps of ordered bins to the embeddings of the bins.

  Steps help training (see `layers.encoder.TabularEncoder`) and are a second
  table of the same size for each bin; afterwards one table holds the sums. The
  model computes the same as before.

  Args:
    model: any model with a TabularEncoder, or an encoder itself.
    params: its parameters, with or without a leading axis of seeds.

  Returns:
    (model, params), with `num_ordered=0` and without `steps`; both unchanged if
    there are no steps.

  Raises:
    ValueError: the parameters are those of another model.
  """
  _checks.check_params(params)
  encoder = find(model)
  if encoder is None or not encoder.num_ordered:
    return model, params
  folded, found = _fold(encoder, params)
  if not found:
    raise ValueError(
      f'the parameters of {type(model).__name__} have no steps for the '
      f'{encoder.num_ordered} ordered columns of its encoder: pass the '
      'parameters of this model'
    )
  return replace(model, encoder.clone(num_ordered=0)), folded


def find(model: Any) -> Any:
  """Returns the encoder of tables inside a model, or None."""
  if hasattr(model, 'num_categories'):
    return model
  for name in _INSIDE:
    inside = getattr(model, name, None)
    if inside is not None:
      return find(inside)
  return None


def replace(model: Any, encoder: Any) -> Any:
  """Returns a model with another encoder of tables."""
  if hasattr(model, 'num_categories'):
    return encoder
  for name in _INSIDE:
    inside = getattr(model, name, None)
    if inside is not None:
      change = {name: replace(inside, encoder)}
      if hasattr(model, 'clone'):  # a Linen module
        return model.clone(**change)
      return dataclasses.replace(model, **change)
  raise ValueError(f'{type(model).__name__} has no encoder of tables')


def check_tables(tables: Any, model: Any) -> Any:
  """Returns the encoder of a model.

  Raises:
    ValueError: it does not read what the tables encode.
  """
  if not isinstance(tables, Tables):
    raise ValueError(
      'tables must be what lplmtl.tables.fit returns, found '
      f'{type(tables).__name__}'
    )
  encoder, sizes = find(model), tables.num_categories
  if encoder is None:
    raise ValueError(
      f'expected a model with a TabularEncoder, found {type(model).__name__} '
      'without'
    )
  if getattr(encoder, 'composed_columns', ()):
    raise ValueError(
      'expected an encoder with a row for each value of a column, found '
      'columns composed of two rows: train without compose_by'
    )
  found = tuple(encoder.num_categories)
  if found != sizes:
    raise ValueError(
      f'the tables have {len(sizes)} columns and {sum(sizes)} ids, the encoder '
      f'has {len(found)} and {sum(found)}: pass the tables that the model '
      'was trained with'
    )
  return encoder


def _fold(encoder: Any, params: PyTree) -> tuple[PyTree, int]:
  """Returns parameters without steps, and the number of encoders found."""
  if not isinstance(params, Mapping):
    return params, 0
  if 'embedding' in params and 'steps' in params:
    return encoder.fold_steps(params)[1], 1
  pairs = {name: _fold(encoder, part) for name, part in params.items()}
  return (
    {name: part for name, (part, _) in pairs.items()},
    sum(count for _, count in pairs.values()),
  )
