"""The fits of a comparison: settings tried on validation, seeds in the end.

Settings that differ in numbers alone train as one population, so that they
compile once; a row's last fit is one more.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.launcher import build as runner
from experiments.launcher import memory, quality, scoring
from experiments.launcher.options import Config
from lplmtl import training
from lplmtl.training import steps
from lplmtl.types import Task

# Fields that a program takes as numbers: what differs in these compiles once.
NUMBERS = (
  'dropout', 'learning_rate', 'weight_decay', 'loss_weight_learning_rate',
  'soft_sharing', 'selection_entropy',
)  # fmt: skip


class Final(NamedTuple):
  """A row's last fit.

  Attributes:
    facts: JSON data: metrics, sizes, rates.
    scores: `{task: [S, N] float32}`, logits of the test rows (`[S, N, K]` of K
      classes).
  """

  facts: dict[str, Any]
  scores: dict[str, np.ndarray]


def groups(configs: Mapping[str, Config]) -> list[dict[str, Config]]:
  """Configs that differ in `NUMBERS` alone, together."""
  found: dict[Any, dict[str, Config]] = {}
  for name, config in configs.items():
    given = {name: getattr(config, name) is not None for name in NUMBERS}
    fields = {**dataclasses.asdict(config), **given}
    found.setdefault(repr(fields), {})[name] = config
  return list(found.values())


def tune(
  configs: Mapping[str, Config], data: Any, tasks: Sequence[Task]
) -> dict[str, dict[str, Any]]:
  """Trains settings of one group, the same seeds of each.

  Returns:
    `{name: {task: [S]}}`, each task's primary validation metric at the epoch
    that a seed chose.
  """
  first = next(iter(configs.values()))
  with memory.guard(first):
    fitted, _ = _fit(list(configs.values()), data, tasks)
  scored = _chosen_validation(fitted, tasks)
  size = first.num_seeds
  return {
    name: {
      task: values[i * size : (i + 1) * size].tolist()
      for task, values in scored.items()
    }
    for i, name in enumerate(configs)
  }


def final(config: Config, data: Any, tasks: Sequence[Task]) -> Final:
  """Trains a row's chosen setting, and scores the test rows."""
  with memory.guard(config):
    return _final(config, data, tasks)


def _final(config: Config, data: Any, tasks: Sequence[Task]) -> Final:
  fitted, model = _fit([config], data, tasks)
  params = jax.device_get(fitted.params)
  example = jax.tree.map(lambda x: x[:1], data.test.features)
  rows = fitted.steps_taken * config.batch_size * config.num_seeds
  weights = np.asarray(fitted.history[-1]['loss_weights'], np.float64)
  test = scoring.score(model, tasks, fitted.params, data.test)
  validation = scoring.score(model, tasks, fitted.params, data.validation)
  first = jax.tree.map(lambda x: x[0], params)
  predict = steps.make_predictor(model, first)
  facts = {
    'test': test.metrics,
    'validation': validation.metrics,
    'calibration': test.calibration,
    **scoring.costs(model, params, example),
    'gates': scoring.gate_use(model, params, data.test.features),
    'loss_weights': {
      task.name: scoring.over_seeds(weights[:, i])
      for i, task in enumerate(tasks)
    },
    'best_epoch': fitted.best_epoch.tolist(),
    'examples_per_second': rows / fitted.seconds['train'],
    'latency': scoring.latency(predict, example),
    'seconds': dict(fitted.seconds),
  }
  scores = {
    name: x[..., 0] if x.shape[-1] == 1 else x
    for name, x in test.logits.items()
  }
  return Final(facts, scores)


def _fit(
  configs: Sequence[Config], data: Any, tasks: Sequence[Task]
) -> tuple[training.FitResult, Any]:
  """One population; returns its model too (the first setting's)."""
  base = configs[0]
  num_rows = data.facts['rows']['train']

  def parts(numbers: Mapping[str, Any]) -> runner.Parts:
    config = dataclasses.replace(base, **numbers)
    return runner.make_parts(config, tasks, data.tables, num_rows)

  hyperparams = {
    name: np.repeat(
      np.array([getattr(config, name) for config in configs], np.float32),
      base.num_seeds,
    )
    for name in NUMBERS
    if len({getattr(config, name) for config in configs}) > 1
  }
  seeds = np.tile(np.arange(base.num_seeds) + base.seed, len(configs))
  made = parts({})
  fields: list[Any] = list(made)
  if hyperparams:
    fields = [lambda h, i=i: parts(h)[i] for i in range(len(made))]
  fitted = training.fit(
    jax.vmap(jax.random.key)(jnp.asarray(seeds)),
    fields[0],
    fields[1],
    fields[2],
    data.train,
    hyperparams=hyperparams or None,
    validation=data.validation,
    batch_size=base.batch_size,
    num_epochs=base.epochs,
    eval_every=base.eval_every,
    patience=base.patience or None,
    skip_nonfinite=base.skip_nonfinite,
  )
  return fitted, made.model


def _chosen_validation(
  fitted: training.FitResult, tasks: Sequence[Task]
) -> dict[str, np.ndarray]:
  """`{task: [S]}`: the primary metric at each seed's best epoch."""
  scored = [r for r in fitted.history if 'validation' in r]
  epochs = np.array([record['epoch'] for record in scored])
  chosen = np.searchsorted(epochs, fitted.best_epoch)
  found = {}
  for task in tasks:
    metric = quality.primary(scored[0]['validation'][task.name])
    table = np.stack([r['validation'][task.name][metric] for r in scored])
    found[task.name] = table[chosen, np.arange(len(chosen))].astype(float)
  return found
