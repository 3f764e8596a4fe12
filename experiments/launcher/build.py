"""From a Config to a model, an optimiser and a balancer."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from optax import contrib

from experiments.launcher import memory
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import architectures, balancing, sparse
from lplmtl.layers import crosses, encoder, experts
from lplmtl.tables import Tables
from lplmtl.types import Aggregator, Balancer, Batch, PyTree, Source, Task

_T = TypeVar('_T')
# Rows of a sharded table are a multiple of this, whatever the number of
# devices: a power of 2, as that usually is.
_ROWS = 1024


class Parts(NamedTuple):
  """What `training.fit` puts together."""

  model: nn.Module
  optimizer: optax.GradientTransformation
  balancer: Balancer | Aggregator


def make_parts(
  config: Config, tasks: Sequence[Task], tables: Tables, num_rows: int
) -> Parts:
  """Builds all that a Config names, for this number of training rows."""
  steps_per_epoch = num_rows // config.batch_size
  return Parts(
    make_model(config, tasks, make_encoder(config, tables)),
    make_optimizer(config, config.epochs * steps_per_epoch),
    make_balancer(config, tasks, steps_per_epoch),
  )


def make_encoder(config: Config, tables: Tables) -> nn.Module:
  """Builds the encoder of tables, with feature crosses if asked for."""
  columns = encoder.TabularEncoder(
    tables.num_categories,
    config.embed_dim,
    tables.num_ordered,
    tables.num_buckets,
    tables.num_pieces,
  )
  if config.compose_by != 'none':
    columns = columns.clone(
      compose_by=config.compose_by,
      compose_above=config.compose_above,
      collisions=config.collisions,
    )
  if config.shard_tables:
    columns = columns.clone(multiple_of=_ROWS)
  if not config.num_crosses:
    return columns
  return crosses.CrossNetwork(
    columns, rank=config.cross_rank, num_layers=config.num_crosses
  )


def check_names(config: Config) -> None:
  """Raises InputError for an unknown architecture or balancer."""
  if config.architecture in _by_file(architectures.CHAINS):
    raise InputError(
      f'--architecture={config.architecture} is for tasks in a chain, such as '
      'click and buy, which these are not (from Python: '
      f'lplmtl.{config.architecture.upper()}, with lplmtl.data.clicks)'
    )
  known = _by_file(architectures.ARCHITECTURES)
  _pick('architecture', config.architecture, known)
  balancer(config.balancer)


def architecture(name: str) -> type[nn.Module]:
  """Returns the class of an architecture, by the name of its file."""
  known = (*architectures.ARCHITECTURES, *architectures.CHAINS)
  return _pick('architecture', name, _by_file(known))


def balancer(name: str) -> Callable[..., Balancer | Aggregator]:
  """Returns the constructor of a balancer, by its name."""
  return _pick('balancer', name, _balancers())


def architecture_names() -> tuple[str, ...]:
  """Returns what --architecture may be."""
  return tuple(sorted(_by_file(architectures.ARCHITECTURES)))


def balancer_names() -> tuple[str, ...]:
  """Returns what --balancer may be."""
  return tuple(sorted(_balancers()))


def _by_file(classes: Sequence[type[nn.Module]]) -> dict[str, type[nn.Module]]:
  return {cls.__module__.rsplit('.', 1)[-1]: cls for cls in classes}


def _balancers() -> dict[str, Callable[..., Balancer | Aggregator]]:
  constructors: tuple[Callable[..., Balancer | Aggregator], ...] = (
    *balancing.LOSS_WEIGHTINGS,
    *balancing.GRAMIAN_METHODS,
    *balancing.AGGREGATORS,
  )
  return {constructor.__name__: constructor for constructor in constructors}


def make_model(
  config: Config, tasks: Sequence[Task], features: nn.Module | None
) -> nn.Module:
  """Builds the architecture that a Config names.

  Args:
    config: an architecture takes the sizes for which it has a field.
    tasks: T tasks.
    features: the encoder; None for a model of plain arrays.
  """
  cls = architecture(config.architecture)

  def mlp(widths: tuple[int, ...]) -> experts.MLP:
    return experts.MLP(
      widths, dropout_rate=config.dropout, dtype=config.compute_dtype
    )

  offered = {
    'tasks': tuple(tasks),
    'encoder': features,
    'expert': mlp(config.expert_widths[0]),
    'levels': tuple(mlp(widths) for widths in config.expert_widths),
    'num_experts': config.num_experts,
    'num_specific': config.num_specific,
    'num_shared': config.num_shared,
    'num_top': config.num_top,
    'num_selected': config.num_selected,
    'top': config.top,
    'strength': config.soft_sharing,
    'entropy': config.selection_entropy,
    'ranks': config.ranks,
    'bottom': mlp(config.bottom_widths),
    'tower': mlp(config.tower_widths),
  }
  wanted = {field.name for field in dataclasses.fields(cls)}
  return cls(**{k: v for k, v in offered.items() if k in wanted})


def make_balancer(
  config: Config, tasks: Sequence[Task], steps_per_epoch: int = 1
) -> Balancer | Aggregator:
  """Builds the balancer that a Config names, with the options it takes."""
  constructor = balancer(config.balancer)
  offered: dict[str, Any] = {
    'steps_per_epoch': steps_per_epoch,
    'weights': config.loss_weights or None,
    'initial': config.loss_weights or None,
    'rates': config.loss_weight_rates or None,
  }
  if config.loss_weight_learning_rate is not None:
    offered['learning_rate'] = config.loss_weight_learning_rate
  wanted = inspect.signature(constructor).parameters
  try:
    made: Any = constructor(**{k: v for k, v in offered.items() if k in wanted})
    if config.balancer_scope is not None:
      made = made._replace(scope=config.balancer_scope)
    if config.loss_weight_sum is not None:
      made = balancing.normalized(made, config.loss_weight_sum)
    if isinstance(made, Balancer):
      jax.eval_shape(lambda: made.init(jax.random.key(0), len(tasks)))
  except ValueError as error:
    raise InputError(f'--balancer={config.balancer}: {error}') from error
  return made


def make_optimizer(
  config: Config, num_steps: int
) -> optax.GradientTransformation:
  """Builds the optimiser that a Config names, scheduled over `num_steps`."""
  made = _plain_optimizer(config, num_steps)
  if config.shard_tables and not config.lazy:
    raise InputError('--shard_tables needs --lazy as well: add it')
  if config.lazy:
    return sparse.lazy(made, sharded=config.shard_tables)
  return made


def _plain_optimizer(
  config: Config, num_steps: int
) -> optax.GradientTransformation:
  if config.schedule == 'free':
    return schedule_free(config, num_steps)
  rate: optax.ScalarOrSchedule = config.learning_rate
  if config.schedule == 'cosine':
    rate = optax.cosine_decay_schedule(config.learning_rate, num_steps)
  constructors: dict[str, Callable[[], optax.GradientTransformation]] = {
    'adam': lambda: optax.adam(rate),
    'adamw': lambda: optax.adamw(rate, weight_decay=config.weight_decay),
    'adagrad': lambda: optax.adagrad(rate),
    'sgd': lambda: optax.sgd(rate, momentum=0.9),
  }
  return _pick('optimizer', config.optimizer, constructors)()


def schedule_free(
  config: Config, num_steps: int
) -> optax.GradientTransformation:
  """Builds the optimiser that averages its iterates, after a warm-up.

  Without one, the average would keep the first, wildest steps.
  """
  if config.optimizer == 'adagrad':
    raise InputError(
      '--schedule=free is for adam, adamw and sgd: found --optimizer=adagrad'
    )
  rate, warm_up = config.learning_rate, min(100, num_steps // 10)
  decay = config.weight_decay if config.optimizer == 'adamw' else 0.0
  if config.optimizer == 'sgd':
    return contrib.schedule_free_sgd(rate, warm_up)
  return contrib.schedule_free_adamw(rate, warm_up, weight_decay=decay)


def _pick(kind: str, name: str, known: Mapping[str, _T]) -> _T:
  """Returns `known[name]`; raises an InputError that lists the valid names."""
  if name not in known:
    raise InputError(
      f'unknown {kind} {name!r}: expected one of {", ".join(sorted(known))}'
    )
  return known[name]


def check_rows(config: Config, rows: Batch | Source, num_train: int) -> None:
  """Refuses fewer training rows than there are devices or shards for them."""
  count, devices = jax.process_count(), jax.device_count()
  if count > 1 and config.num_seeds == 1 and num_train < devices:
    raise InputError(
      f'{num_train} training rows are fewer than the {devices} devices of '
      f'{count} processes: start fewer processes'
    )
  if not isinstance(rows, Batch) and num_train < rows.num_shards:
    raise InputError(
      f'{num_train} training rows are too few to be read in chunks, which '
      f'takes {rows.num_shards}: leave out --stream'
    )


def fit_batch_size(config: Config, most: int) -> Config:
  """Lowers the batch size to what a small table of one's own can fill.

  As lplmtl.tabular does: that table may have fewer rows than the default is.
  The devices of several processes share the batch of a single seed evenly.

  Args:
    config: the settings.
    most: the training rows, or those of a chunk; at least the devices.
  """
  if not config.data or config.batch_size <= most:
    return config
  if jax.process_count() > 1 and config.num_seeds == 1:
    most -= most % jax.device_count()
  return dataclasses.replace(config, batch_size=most)


def check_batch_size(config: Config, num_train: int) -> None:
  """Refuses a batch size above the number of training rows."""
  if config.batch_size > num_train:
    raise InputError(
      f'--batch_size={config.batch_size} is more than the {num_train:,} '
      'training rows'
    )


def check_shares(config: Config, rows: Batch | Source) -> None:
  """Refuses what several processes cannot share evenly for a single seed."""
  count, devices = jax.process_count(), jax.device_count()
  if count == 1 or config.num_seeds > 1:
    return
  size, what = config.batch_size, f'--batch_size={config.batch_size}'
  remedy = 'change one of them, or --cpu_devices'
  if not isinstance(rows, Batch):
    size = rows.num_shards
    what = f'the {size} shards of a table that is read in chunks'
    remedy = (
      'start fewer processes or lower --cpu_devices; several seeds, and '
      'lplmtl.data.write_rows with more num_shards, can use more'
    )
  if size % devices:
    raise InputError(
      f'the {devices} devices of {count} processes must divide {what} evenly: '
      f'{remedy}'
    )


def check_model(config: Config, model: nn.Module, features: PyTree) -> None:
  """Traces the model once, so that sizes that do not fit are reported early."""
  try:
    variables = jax.eval_shape(model.init, jax.random.key(0), features)
  except (ValueError, OverflowError) as error:
    reason = str(error).split('\n')[0]
    raise InputError(f'this model cannot be built: {reason}') from error
  memory.check(variables, config)


def seed_keys(config: Config) -> jax.Array:
  """Returns one key per seed: for `seed`, `seed + 1`, ..."""
  return jax.vmap(jax.random.key)(jnp.arange(config.num_seeds) + config.seed)
