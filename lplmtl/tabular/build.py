"""From settings, tasks and tables to the three parts that `fit` trains."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import optax
from optax import contrib

from lplmtl.layers import crosses, encoder, experts
from lplmtl.tables import Tables
from lplmtl.tabular.settings import Settings
from lplmtl.types import Aggregator, Balancer, Task


def make_encoder(settings: Settings, tables: Tables) -> nn.Module:
  """Builds the encoder of a table, with feature crosses if asked for."""
  columns = encoder.TabularEncoder(
    tuple(map(_rounded, tables.num_categories)),
    settings.embed_dim,
    num_buckets=tables.num_buckets,
    num_pieces=tuple(map(_rounded, tables.num_pieces)),
  )
  if not settings.num_crosses:
    return columns
  return crosses.CrossNetwork(
    columns, rank=settings.cross_rank, num_layers=settings.num_crosses
  )


def _rounded(size: int) -> int:
  """Rounds a size up: to a multiple of 8, or by up to a quarter from 64 on.

  The folds of a table differ by a few rare values, but then seldom in their
  programs, which compile once (see `lplmtl.training.compiled`).
  """
  step = max(8, (1 << size.bit_length()) // 8)
  return -(-size // step) * step


def make_model(
  settings: Settings,
  tasks: Sequence[Task],
  columns: nn.Module,
  dropout: Any = None,
) -> nn.Module:
  """Builds the architecture, with those of the sizes that it has fields for.

  Args:
    settings: see `Settings.architecture`.
    tasks: T tasks.
    columns: the encoder.
    dropout: replaces the dropout rate; may be a traced scalar.

  Raises:
    ValueError: the architecture does not take tasks and an encoder, or returns
      something else than a model, or it has levels and `widths` is empty.
  """
  rate = settings.dropout if dropout is None else dropout

  def mlp(widths: Sequence[int]) -> nn.Module:
    return experts.MLP(tuple(widths), dropout_rate=rate)

  offered = {
    'expert': mlp(settings.widths),
    'levels': tuple(mlp((width,)) for width in settings.widths),
    'bottom': mlp(settings.widths),
    'tower': mlp(settings.tower_widths),
  }
  maker = settings.architecture
  given = getattr(maker, 'keywords', {})  # of a functools.partial
  takes = inspect.signature(maker).parameters
  if 'tasks' not in takes or 'encoder' not in takes:
    raise ValueError(
      f'architecture must take the arguments tasks and encoder, found {maker!r}'
    )
  sizes = {k: v for k, v in offered.items() if k in takes and k not in given}
  if 'levels' in sizes and not settings.widths:
    raise ValueError(
      'widths must have an entry for each level of experts, such as (32, 32); '
      'found none'
    )
  model = maker(tasks=tuple(tasks), encoder=columns, **sizes)
  if not hasattr(model, 'apply') or not hasattr(model, 'tasks'):
    raise ValueError(
      'architecture must return a model, such as lplmtl.SPLE(tasks, encoder); '
      f'found {model!r}'
    )
  return model


@dataclasses.dataclass(frozen=True)
class ModelMaker:
  """Makes the model from the dropout rate of one member of a population."""

  settings: Settings
  tasks: tuple[Task, ...]
  columns: nn.Module

  def __call__(self, hyperparams: Mapping[str, Any]) -> nn.Module:
    """Returns the model."""
    return make_model(
      self.settings, self.tasks, self.columns, hyperparams['dropout']
    )


@dataclasses.dataclass(frozen=True)
class OptimizerMaker:
  """Makes AdamW from the learning rate and weight decay of one model.

  As these are numbers of the program, not constants, fits that differ only in
  them share one program.
  """

  schedule: str
  num_steps: int

  def __call__(
    self, hyperparams: Mapping[str, Any]
  ) -> optax.GradientTransformation:
    """Returns the optimiser."""
    rate = hyperparams['learning_rate']
    decay = hyperparams['weight_decay']
    if self.schedule == 'free':
      # Without a warm-up, the average would keep the first, wildest steps.
      warm_up = min(100, self.num_steps // 10)
      return contrib.schedule_free_adamw(rate, warm_up, weight_decay=decay)
    if self.schedule == 'cosine':
      rate = optax.cosine_decay_schedule(rate, self.num_steps)
    return optax.adamw(rate, weight_decay=decay)


def make_balancer(settings: Settings) -> Balancer | Aggregator:
  """Returns the balancer that the settings hold, or that they construct."""
  made: Any = settings.balancer
  return made if hasattr(made, 'init') else made()
