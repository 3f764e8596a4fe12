"""What every launcher needs: from a Config to a model and to results.json."""

import contextlib
import dataclasses
import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.launcher import memory
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config, cache_dir
from lplmtl import architectures, balancing
from lplmtl.layers import encoder, experts
from lplmtl.tables import Tables
from lplmtl.training import parallel
from lplmtl.types import Aggregator, Balancer, PyTree, Task


class Parts(NamedTuple):
  """What `fit` puts together."""

  model: nn.Module
  optimizer: optax.GradientTransformation
  balancer: Balancer | Aggregator


def make_parts(
  config: Config, tasks: Sequence[Task], tables: Tables, num_rows: int
) -> Parts:
  """All that a Config names, for so many training rows."""
  num_steps = config.epochs * (num_rows // config.batch_size)
  return Parts(
    make_model(config, tasks, make_encoder(config, tables)),
    make_optimizer(config, num_steps),
    make_balancer(config, tasks, num_rows // config.batch_size),
  )


def make_encoder(config: Config, tables: Tables) -> nn.Module:
  """Embedded columns, and crosses of them if a Config asks for any."""
  columns = encoder.TabularEncoder(
    tables.num_categories, config.embed_dim, tables.num_ordered
  )
  if not config.num_crosses:
    return columns
  return encoder.CrossNetwork(
    columns, rank=config.cross_rank, num_layers=config.num_crosses
  )


def start(config: Config) -> None:
  """Settings of JAX that must be made before it starts.

  Programs that were compiled once are kept on disk, the small ones too. In a
  notebook, where JAX may run already, the number of devices stays as it is.
  """
  kept = cache_dir()
  folder = config.compilation_cache or (str(kept / 'jax') if kept else 'none')
  if folder != 'none' and _can_keep(config, folder):
    # A damaged entry is compiled anew: nobody needs to know.
    warnings.filterwarnings(
      'ignore', r'Error (reading|writing) persistent compilation cache'
    )
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(folder))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  with contextlib.suppress(RuntimeError):
    jax.config.update('jax_num_cpu_devices', _cpu_devices(config))
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # the latter without a plugin
    reason = str(error).split('\n')[0] or 'it is not installed'
    wanted = os.environ.get('JAX_PLATFORMS', '')
    raise InputError(
      f'JAX finds no device for JAX_PLATFORMS={wanted} ({reason}): leave '
      'it unset for whatever there is, or install JAX for this device'
    ) from error


def _can_keep(config: Config, folder: str) -> bool:
  """Whether there is a folder for compiled programs, or can be.

  Raises:
    InputError: it was asked for, and there cannot.
  """
  if '://' in folder:  # a bucket
    return True
  try:
    os.makedirs(os.path.expanduser(folder), exist_ok=True)
  except OSError as error:
    if config.compilation_cache:
      raise InputError(
        f'--compilation_cache={folder} must be a folder that can be written, '
        f'or none ({error.strerror})'
      ) from error
    return False
  return True


def _cpu_devices(config: Config) -> int:
  """Host devices: as many as cores, where there is work for each.

  On two cores two seeds train 1.3 times as fast as one after the other, and a
  single one whose batches are split 1.3 times as fast as on one device.
  """
  if config.cpu_devices:
    return config.cpu_devices
  cores = parallel.num_cores()
  if config.num_seeds > 1:
    return min(cores, config.num_seeds)
  # A hundred rows are the least that pay for the exchange of gradients.
  most = min(cores, max(config.batch_size // 100, 1))
  return next(n for n in range(most, 0, -1) if config.batch_size % n == 0)


def check_names(config: Config) -> None:
  """Raises an InputError for an architecture or a balancer that is not."""
  if config.architecture in _by_file(architectures.CHAINS):
    raise InputError(
      f'--architecture={config.architecture} is for tasks in a chain, such as '
      'click and buy; those of Census-Income do not follow each other (from '
      f'Python: lplmtl.{config.architecture.upper()}, and lplmtl.data.clicks)'
    )
  known = _by_file(architectures.ARCHITECTURES)
  pick('architecture', config.architecture, known)
  balancer(config.balancer)


def architecture(name: str) -> type[nn.Module]:
  """The class of an architecture, by its file's name."""
  known = (*architectures.ARCHITECTURES, *architectures.CHAINS)
  return pick('architecture', name, _by_file(known))


def balancer(name: str) -> Callable[..., Balancer | Aggregator]:
  """The constructor of a balancer, by its name."""
  return pick('balancer', name, _balancers())


def architecture_names() -> tuple[str, ...]:
  """What --architecture may be."""
  return tuple(sorted(_by_file(architectures.ARCHITECTURES)))


def balancer_names() -> tuple[str, ...]:
  """What --balancer may be."""
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
  """The architecture that a Config names, with its sizes.

  An architecture takes from the Config what it has fields for; `features` is
  its encoder.
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
  """The balancer that a Config names, with the options it takes."""
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
  """The optimiser that a Config names, its schedule over `num_steps` steps."""
  rate: Any = config.learning_rate
  if config.schedule == 'cosine':
    rate = optax.cosine_decay_schedule(config.learning_rate, num_steps)
  constructors: dict[str, Callable[[], optax.GradientTransformation]] = {
    'adam': lambda: optax.adam(rate),
    'adamw': lambda: optax.adamw(rate, weight_decay=config.weight_decay),
    'sgd': lambda: optax.sgd(rate, momentum=0.9),
  }
  return pick('optimizer', config.optimizer, constructors)()


def pick(kind: str, name: str, known: Mapping[str, Any]) -> Any:
  """`known[name]`, or an error that lists the valid names."""
  if name not in known:
    raise InputError(
      f'unknown {kind} {name!r}: expected one of {", ".join(sorted(known))}'
    )
  return known[name]


def check_batch_size(config: Config, num_train: int) -> None:
  """Refuses batches that are larger than the training rows."""
  if config.batch_size > num_train:
    raise InputError(
      f'--batch_size={config.batch_size} is larger than the data: '
      f'{num_train:,} training rows'
    )


def check_model(config: Config, model: nn.Module, features: PyTree) -> None:
  """Traces the model once, so that sizes that do not fit show at once."""
  try:
    variables = jax.eval_shape(model.init, jax.random.key(0), features)
  except (ValueError, OverflowError) as error:
    reason = str(error).split('\n')[0]
    raise InputError(f'this model cannot be built: {reason}') from error
  memory.check(variables, config)


def seed_keys(config: Config) -> jax.Array:
  """One key a seed: seed, seed + 1, ..."""
  return jax.vmap(jax.random.key)(jnp.arange(config.num_seeds) + config.seed)
