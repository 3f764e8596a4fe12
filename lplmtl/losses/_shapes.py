"""What the losses per row share: checks of shapes, and the mean of a row."""

from lplmtl.types import Array


def mean_per_row(values: Array) -> Array:
  """Averages over all axes but the first: `[B, ...] -> [B]`."""
  return values.reshape(values.shape[0], -1).mean(axis=1)


def check(
  name: str, predictions: Array, labels: Array, num_outputs: int | None = None
) -> None:
  """Raises ValueError unless shapes are `[B, ..., K]` and `[B, ...]`."""
  last = 'K' if num_outputs is None else str(num_outputs)
  fits = predictions.shape[:-1] == labels.shape and (
    num_outputs in (None, predictions.shape[-1])
  )
  if not fits:
    raise ValueError(
      f'{name} expects predictions [B, ..., {last}] and labels [B, ...]; found '
      f'{predictions.shape} and {labels.shape}'
    )


def check_alike(name: str, predictions: Array, labels: Array) -> None:
  """Raises ValueError unless both shapes are `[B, ..., K]`."""
  if predictions.shape != labels.shape or predictions.ndim < 2:
    raise ValueError(
      f'{name} expects predictions and labels [B, ..., K]; found '
      f'{predictions.shape} and {labels.shape}'
    )
