"""Pairs of overlaid digits: two tasks of one image, the field's usual example.

The recipe of MultiMNIST (Sabour et al. 2017), with the handwritten digits that
scikit-learn ships (8x8 pixels, 1,797 of them), so that nothing is downloaded.
"""

import dataclasses
import functools
import importlib
from typing import Any

import numpy as np

from experiments.datasets.base import Data
from experiments.launcher.errors import InputError
from lplmtl import ImageEncoder, tables, tasks
from lplmtl.types import Batch

MOST_ROWS = 10_000_000
_CANVAS, _DIGIT = 24, 16  # pixels on each side; a digit is enlarged twice
_TASKS = ('left', 'right')
_CLASSES = 10
# Of the 1,797 digits; the images of one split appear in no other.
_TRAIN, _VALIDATION = 1100, 300


@dataclasses.dataclass(frozen=True)
class Digits:
  """Images of 24x24 pixels, in which two different digits overlap.

  Each is twice as large as scikit-learn's. The left one begins at the top left;
  the right one begins `offset` pixels further right and down; a pixel shows the
  darker of the two. The digits of training, validation and test rows are
  different images.

  Attributes:
    offset: from 0, where nothing tells left from right, to 8, where a quarter
      of each digit is covered.
    channels: of the convolutions that encode the images.
    rows: pairs to train on.
    validation_rows: to select epochs and settings by.
    test_rows: to score.
  """

  offset: int = 6
  channels: tuple[int, ...] = (8, 16)
  rows: int = 4_000
  validation_rows: int = 1_000
  test_rows: int = 4_000

  def __post_init__(self) -> None:
    check_rows(self.rows, self.validation_rows, self.test_rows)
    most = _CANVAS - _DIGIT
    if not 0 <= self.offset <= most:
      raise InputError(
        f'--problem: expected an offset from 0 to {most}, found {self.offset}'
      )
    if min(self.channels) < 1:
      raise InputError(
        f'--problem: channels must be at least 1, found {self.channels}'
      )

  @property
  def task_names(self) -> list[str]:
    """Names of the tasks, in their order."""
    return [*_TASKS]

  def draw(self, seed: int, num_bins: int = 0) -> Data:
    """Draws pairs; see `problems.Setup`. The optimum is to be always right."""
    images, labels = _load()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    splits = np.split(order, [_TRAIN, _TRAIN + _VALIDATION])
    sizes = (self.rows, self.validation_rows, self.test_rows)
    drawn = [
      _overlay(rng, images[chosen], labels[chosen], size, self.offset)
      for chosen, size in zip(splits, sizes, strict=True)
    ]
    raw = [_columns(pixels) for pixels, _ in drawn]
    encoding = tables.fit({}, raw[0], num_bins=num_bins)
    train, validation, test = (
      Batch(encoding.encode(columns), found)
      for columns, (_, found) in zip(raw, drawn, strict=True)
    )
    return Data(
      tasks=tuple(tasks.multiclass(name, _CLASSES) for name in _TASKS),
      train=train,
      validation=validation,
      test=test,
      tables=encoding,
      facts={'rows': {'train': self.rows}},
      optimum=dict.fromkeys(_TASKS, 1.0),
      make_encoder=lambda: ImageEncoder(self.channels),
    )


def check_rows(*sizes: int) -> None:
  """Raises InputError for numbers of rows that cannot be drawn."""
  if not (min(sizes) >= 1 and max(sizes) <= MOST_ROWS):
    raise InputError(
      f'--problem: expected 1 to {MOST_ROWS:,} rows, validation_rows and '
      f'test_rows, found {", ".join(map(str, sizes))}'
    )


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray]:
  """Returns `[N, 16, 16]` images from 0 to 1, and `[N]` labels."""
  try:
    datasets: Any = importlib.import_module('sklearn.datasets')
  except ImportError as error:
    raise InputError(
      'the digits come with scikit-learn, which cannot be imported: pip '
      'install scikit-learn'
    ) from error
  found = datasets.load_digits()
  small = found.images.astype(np.float32) / 16
  return small.repeat(2, axis=1).repeat(2, axis=2), found.target


def _overlay(
  rng: np.random.Generator,
  images: np.ndarray,
  labels: np.ndarray,
  size: int,
  offset: int,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Returns `[size, 24, 24]` images and the labels of their two digits."""
  left = rng.integers(len(labels), size=size)
  right = rng.integers(len(labels), size=size)
  while (same := labels[left] == labels[right]).any():
    right[same] = rng.integers(len(labels), size=same.sum())
  canvas = np.zeros((2, size, _CANVAS, _CANVAS), np.float32)
  canvas[0, :, :_DIGIT, :_DIGIT] = images[left]
  end = offset + _DIGIT
  canvas[1, :, offset:end, offset:end] = images[right]
  found = {'left': labels[left], 'right': labels[right]}
  return canvas.max(0), {k: v.astype(np.int32) for k, v in found.items()}


def _columns(images: np.ndarray) -> dict[str, np.ndarray]:
  """Returns a column per pixel, row by row."""
  flat = images.reshape(len(images), -1)
  return {f'pixel_{i}': column for i, column in enumerate(flat.T)}
