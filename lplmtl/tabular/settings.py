"""How a table's model is built and trained: plain settings, with defaults."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

from lplmtl import architectures, balancing
from lplmtl.types import Aggregator, Balancer

# A class of `lplmtl.architectures`, or any function that takes the tasks and
# the encoder and returns a model; see `lplmtl.tabular.build.make_model`.
Architecture = Callable[..., Any]
Schedule = Literal['free', 'cosine', 'constant']


@dataclasses.dataclass(frozen=True)
class Settings:
  """What `lplmtl.tabular.train` needs to know beside the schema.

  Attributes:
    architecture: a class of `lplmtl.architectures`, which gets the tasks, the
      encoder, and experts and towers of the widths below; `functools.partial`
      sets its other fields, as in `partial(lplmtl.PLE, num_shared=4)`. Or a
      function `(tasks, encoder) -> model`.
    widths: units per layer of experts: SPLE, PLE and other architectures with
      levels have one level per entry, MMoE an expert with that many layers,
      SharedBottom a trunk with that many.
    tower_widths: units per layer of each task's tower.
    embed_dim: width of the embedding of a category or a number.
    num_bins: the maximum number of pieces of the functions that embed a number
      (see `lplmtl.layers.piecewise`), beside its standardised value; 0 for
      none.
    num_crosses: layers of feature crosses on top of the encoder; 0 for none.
    cross_rank: rank of each cross.
    dropout: fraction of units dropped in experts and towers, in [0, 1).
    learning_rate: of AdamW, at its highest.
    weight_decay: of AdamW.
    schedule: 'free' averages the parameters over the steps, so that any epoch
      is a good one to stop at (Defazio et al. 2024); 'cosine' lowers the
      learning rate to 0 over `num_epochs`; 'constant' does neither.
    batch_size: rows per step; all of them, if there are fewer.
    num_epochs: passes over the training rows.
    patience: stop after this many epochs without improvement of the mean
      primary metric on the validation rows; None trains all epochs. The best
      epoch is kept in either case.
    balancer: a constructor of `lplmtl.balancing`, or what it returns.
    num_seeds: S, models that are trained at once and averaged.
    seed: the first seed; also selects the validation rows.
    validation_share: fraction of the rows held out for choosing the epoch,
      below 1/2, unless validation rows are passed or a split column of the
      schema names them; 0 trains on all rows, and keeps the last epoch.

  Example:
    >>> Settings(num_seeds=5).num_seeds
    5
  """

  architecture: Architecture = architectures.SPLE
  widths: tuple[int, ...] = (32, 32)
  tower_widths: tuple[int, ...] = (32,)
  embed_dim: int = 8
  num_bins: int = 128
  num_crosses: int = 0
  cross_rank: int = 32
  dropout: float = 0.1
  learning_rate: float = 8e-3
  weight_decay: float = 1e-4
  schedule: Schedule = 'free'
  batch_size: int = 256
  num_epochs: int = 40
  patience: int | None = 5
  balancer: Balancer | Aggregator | Callable[[], Any] = balancing.equal
  num_seeds: int = 3
  seed: int = 0
  validation_share: float = 0.1

  def __post_init__(self) -> None:
    _check(self)


def _check(settings: Settings) -> None:
  """Raises ValueError for a setting that no table could be trained with.

  Sizes that depend on the table or the architecture are checked there.
  """
  if not callable(settings.architecture):
    raise ValueError(
      'architecture must be a class such as lplmtl.SPLE, or a function '
      f'(tasks, encoder) -> model; found {settings.architecture!r}'
    )
  if not hasattr(settings.balancer, 'init') and not callable(settings.balancer):
    raise ValueError(
      'balancer must be a constructor such as lplmtl.balancing.uncertainty, or '
      f'what it returns; found {settings.balancer!r}'
    )
  for name in ('widths', 'tower_widths'):
    value = getattr(settings, name)
    if not isinstance(value, tuple | list):
      raise ValueError(
        f'{name} must be a tuple, such as (64,); found {value!r}'
      )
  for name, least in (
    ('embed_dim', 1), ('num_bins', 0), ('num_crosses', 0), ('cross_rank', 1),
    ('batch_size', 1), ('num_epochs', 1), ('num_seeds', 1), ('seed', 0),
  ):  # fmt: skip
    _check_whole(name, getattr(settings, name), least)
  if settings.patience is not None:
    _check_whole('patience', settings.patience, 1)
  for name, below in (
    ('dropout', 1.0), ('validation_share', 0.5),
    ('learning_rate', float('inf')), ('weight_decay', float('inf')),
  ):  # fmt: skip
    _check_real(name, getattr(settings, name), below)
  if settings.schedule not in get_args(Schedule):
    raise ValueError(
      "schedule must be 'free', 'cosine' or 'constant', found "
      f'{settings.schedule!r}'
    )


def _check_whole(name: str, value: Any, least: int) -> None:
  is_whole = hasattr(value, '__index__') and not isinstance(value, bool)
  if not is_whole or value < least:
    raise ValueError(
      f'{name} must be a whole number of at least {least}, found {value!r}'
    )


def _check_real(name: str, value: Any, below: float) -> None:
  try:
    fits = 0 <= float(value) < below
  except (TypeError, ValueError):
    fits = False
  if not fits:
    limit = '' if below == float('inf') else f' and below {below:g}'
    raise ValueError(
      f'{name} must be a number of at least 0{limit}, found {value!r}'
    )
