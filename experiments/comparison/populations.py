"""Settings trained together: one population, on one table or on several.

Settings that differ only in numbers compile once.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.datasets.base import Data
from experiments.launcher import build
from experiments.launcher.options import Config
from lplmtl import training
from lplmtl.types import Batch

# Fields that a program takes as numbers: settings that differ only in these
# compile once.
NUMBERS = (
  'dropout', 'learning_rate', 'weight_decay', 'loss_weight_learning_rate',
  'soft_sharing', 'selection_entropy',
)  # fmt: skip


def groups(configs: Mapping[str, Config]) -> list[dict[str, Config]]:
  """Groups Configs that differ only in NUMBERS."""
  by_program: dict[str, dict[str, Config]] = {}
  for name, config in configs.items():
    # A number that is None makes another program.
    is_given = {n: getattr(config, n) is not None for n in NUMBERS}
    fields = {**dataclasses.asdict(config), **is_given}
    by_program.setdefault(repr(fields), {})[name] = config
  return list(by_program.values())


def fit(
  configs: Sequence[Config], data: Data
) -> tuple[training.FitResult, nn.Module]:
  """Trains one population; also returns the first setting's model."""
  ((fitted, model, _),) = fit_each(configs, [(configs[0].seed, data)])
  return fitted, model


def fit_each(
  configs: Sequence[Config], draws: Iterable[tuple[int, Data]]
) -> Iterator[tuple[training.FitResult, nn.Module, Data]]:
  """Trains one population on each of several tables of equal sizes.

  Args:
    configs: settings that differ in NUMBERS only.
    draws: `(seed, rows)`: the first of the seeds of each setting.

  Yields:
    For each, what `fit` returns, and the rows.
  """
  base = configs[0]
  hyperparams = {
    name: np.repeat(
      np.array([getattr(config, name) for config in configs], np.float32),
      base.num_seeds,
    )
    for name in NUMBERS
    if len({getattr(config, name) for config in configs}) > 1
  }

  def run(seed: int, data: Data) -> tuple[jax.Array, Batch, Batch]:
    seeds = np.tile(np.arange(base.num_seeds) + seed, len(configs))
    return jax.vmap(jax.random.key)(seeds), data.train, data.validation

  # Tables of other sizes, as rows drawn anew may have, are another model.
  for _, group in itertools.groupby(draws, lambda draw: _sizes(base, draw[1])):
    first = next(group)
    made = parts(base, first[1])
    fields: list[Any] = list(made)
    if hyperparams:  # functions of one member's numbers
      fields = [_maker(base, first[1], i) for i in range(len(made))]
    here, kept = itertools.tee(itertools.chain([first], group))  # noqa: B031
    fits = training.fit_each(
      (run(*draw) for draw in here),
      *fields,
      hyperparams=hyperparams or None,
      batch_size=base.batch_size,
      num_epochs=base.epochs,
      eval_every=base.eval_every,
      patience=base.patience or None,
      skip_nonfinite=base.skip_nonfinite,
    )
    for fitted, (_, data) in zip(fits, kept, strict=True):
      yield fitted, made.model, data


def _maker(base: Config, data: Data, part: int) -> Callable[..., Any]:
  def make(numbers: Mapping[str, Any]) -> Any:
    return parts(dataclasses.replace(base, **numbers), data)[part]

  return make


def _sizes(config: Config, data: Data) -> Any:
  return data.facts['rows'], build.make_encoder(config, data.tables)


def check(config: Config, data: Data) -> None:
  """Refuses sizes that do not fit, before anything is trained."""
  num_rows = data.facts['rows']['train']
  build.check_batch_size(config, num_rows)
  made = parts(config, data)
  build.check_model(config, made.model, one_row(data))


def parts(config: Config, data: Data) -> build.Parts:
  """Returns the model, the optimiser and the balancer of a Config."""
  made = build.make_parts(
    config, data.tasks, data.tables, data.facts['rows']['train']
  )
  if data.make_encoder is None:
    return made
  model = build.make_model(config, data.tasks, data.make_encoder())
  return made._replace(model=model)


def one_row(data: Data) -> Any:
  """Returns the features of a single row."""
  return jax.tree.map(lambda x: x[:1], data.test.features)
