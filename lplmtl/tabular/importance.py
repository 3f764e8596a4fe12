"""Which columns the predictions of each target rest on."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from lplmtl import _tables_encode
from lplmtl.tables import Tables
from lplmtl.tabular import predictor as predicting
from lplmtl.tabular import scores, targets


class Importance(NamedTuple):
  """The drop of a primary metric over several shuffles: mean and spread.

  Attributes:
    mean: 0 for a column that does not matter; may be below by chance.
    std: standard deviation over the shuffles.
  """

  mean: float
  std: float


def permutation_importance(
  predictor: predicting.Predictor,
  frame: Any,
  *,
  num_repeats: int = 5,
  seed: int = 0,
) -> dict[str, dict[Any, Importance]]:
  """Measures how much each column matters to each target.

  A column matters as much as the target's primary metric drops when the column
  is shuffled between the rows (Breiman 2001; Fisher et al. 2019). Use rows that
  were not trained on. Of two columns that say the same, each can stand in for
  the other, and neither may seem to matter.

  Args:
    predictor: a trained model.
    frame: rows with inputs and targets; a few thousand are enough.
    num_repeats: shuffles per column.
    seed: of the shuffles.

  Returns:
    `{target: {column: Importance}}`, the most important column first.

  Raises:
    ValueError: there are fewer than two rows, or no shuffle.

  References:
    Breiman 2001, "Random Forests"; Fisher, Rudin & Dominici 2019, "All Models
    are Wrong, but Many are Useful".
  """
  features = predictor.encode(frame)
  count = len(features['numeric'])
  if count < 2 or num_repeats < 1:
    raise ValueError(
      'expected at least two rows and one repeat, found '
      f'{count} rows and num_repeats={num_repeats}'
    )
  labels, where, _ = targets.encode_labels(
    predictor.schema, frame, weighted=False
  )

  def metrics(features: dict[str, np.ndarray]) -> np.ndarray:
    logits = predicting.apply(predictor.model, predictor.params, features)
    return scores.primary(predictor.schema, logits, labels, where)

  before = metrics(features)  # [T]
  rng = np.random.default_rng(seed)
  orders = [rng.permutation(count) for _ in range(num_repeats)]
  drops = {
    name: np.stack(
      [before - metrics(_shuffled(features, parts, order)) for order in orders]
    )
    for name, parts in _columns(predictor.tables)
  }
  found = {}
  for i, target in enumerate(predictor.schema.targets):
    columns = {
      name: Importance(float(drop[:, i].mean()), float(drop[:, i].std()))
      for name, drop in drops.items()
    }
    ranked = sorted(columns, key=lambda name: -columns[name].mean)
    found[target] = {name: columns[name] for name in ranked}
  return found


def _columns(tables: Tables) -> Iterator[tuple[Any, dict[str, list[int]]]]:
  """Yields raw columns with the columns of the encoded arrays they become."""
  for i, name in enumerate(tables.vocabularies):
    yield name, {'categories': [i]}
  for i, name in enumerate(tables.hashed):
    yield name, {'hashed': [i]}
  places, flags = _tables_encode.places(tables)
  parts = {
    name: [f'{name}.{part}' for part in date.parts]
    for name, date in tables.dates.items()
  }
  of_dates = {part for some in parts.values() for part in some}
  sources = {n: [n] for n in tables.numerics if n not in of_dates} | parts
  for name, made in sources.items():
    found = [place for part in made for place in places[part]]
    if name in flags:
      found.append(flags[name])
    yield (
      name,
      {
        array: sorted(i for key, i in found if key == array)
        for array in ('numeric', 'categories')
      },
    )


def _shuffled(
  features: dict[str, np.ndarray],
  parts: dict[str, list[int]],
  order: np.ndarray,
) -> dict[str, np.ndarray]:
  """Returns the arrays with some of their columns in another order of rows."""
  changed = dict(features)
  for name, columns in parts.items():
    if columns:
      changed[name] = features[name].copy()
      changed[name][:, columns] = features[name][order][:, columns]
  return changed
