"""Chooses sizes, dropout and learning rate by the validation rows."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl import training
from lplmtl.tabular import build
from lplmtl.tabular.preparation import Rows, prepare
from lplmtl.tabular.schema import Schema
from lplmtl.tabular.settings import Settings
from lplmtl.tabular.training import fit
from lplmtl.training import progress

# Members of a population differ in numbers only, so they train as one program.
_POPULATION = 4
# Factors of the settings' own widths; a factor of 2 quadruples the products.
_SCALES = (0.25, 0.5, 1.0, 2.0)
_EMBED_DIMS = (4, 8, 16)
_CROSSES = (0, 1, 2)
_MAX_DROPOUT = 0.5
_RATES = (0.1, 4.0)  # factors of the settings' own learning rate


class Trial(NamedTuple):
  """Settings that were tried, and their mean primary metric on validation."""

  settings: Settings
  score: float


class Tuned(NamedTuple):
  """What `tune` returns.

  Attributes:
    settings: those of the best trial.
    trials: all of them, in order; the first has the settings that `tune` was
      given.
  """

  settings: Settings
  trials: tuple[Trial, ...]


def tune(
  frame: Any,
  schema: Schema,
  settings: Settings | None = None,
  *,
  num_trials: int = 20,
  validation: Any = None,
  on_trial: Callable[[Trial], None] | None = None,
) -> Tuned:
  """Tries settings, the given ones first, and returns the best.

  Optuna (the extra `tune`) proposes the widths, the width of embeddings, the
  number of crosses, the dropout rate and the learning rate. Four trials at a
  time have the same sizes and train side by side, as one program. Rows that the
  schema's split calls test are not read. Equal arguments give equal results.

  Args:
    frame: as for `lplmtl.tabular.train`.
    schema: likewise.
    settings: what is not tuned, and where the search starts; one model is
      trained per trial, whatever `num_seeds` says.
    num_trials: rounded up to a multiple of four, if above four.
    validation: the rows that choose, as for `lplmtl.tabular.train`.
    on_trial: called with each trial.

  Returns:
    Tuned.

  Raises:
    ImportError: Optuna is not installed.
    ValueError: there are no validation rows, every trial failed, or as for
      `lplmtl.tabular.train`.
  """
  settings = settings or Settings()
  rows = prepare(frame, schema, settings, validation)
  return tune_rows(rows, settings, num_trials, on_trial)


def tune_rows(
  rows: Rows,
  settings: Settings,
  num_trials: int,
  on_trial: Callable[[Trial], None] | None = None,
) -> Tuned:
  """Tries settings on encoded rows; see `tune`."""
  optuna = _optuna()
  if num_trials < 1:
    raise ValueError(f'num_trials must be at least 1, found {num_trials!r}')
  if rows.validation is None:
    raise ValueError(
      'tuning needs validation rows, found none: pass validation, or a '
      'validation_share above 0'
    )
  size = min(_POPULATION, num_trials)
  trials: list[Trial] = []
  with _silent(optuna):
    sampler = optuna.samplers.TPESampler(seed=settings.seed)
    study = optuna.create_study(direction='maximize', sampler=sampler)
    study.enqueue_trial(_own(settings))
    for _ in range(-(-num_trials // size)):
      asked = _ask(study, settings, size)
      results = _train(rows, [settings for _, settings in asked])
      for (trial, _), tried in zip(asked, results, strict=True):
        failed = optuna.trial.TrialState.FAIL if np.isnan(tried.score) else None
        study.tell(trial, None if failed else tried.score, state=failed)
        trials.append(tried)
        if on_trial is not None:
          on_trial(tried)
  finished = [trial for trial in trials if not np.isnan(trial.score)]
  if not finished:
    raise ValueError(
      'every trial ended in losses that are not finite: lower learning_rate'
    )
  best = max(finished, key=lambda trial: trial.score)
  return Tuned(best.settings, tuple(trials))


def _optuna() -> Any:
  try:
    import optuna  # an extra, which takes a second to import
  except ImportError as error:
    raise ImportError(
      "tuning needs Optuna: pip install 'lplmtl[tune]'"
    ) from error
  return optuna


@contextlib.contextmanager
def _silent(optuna: Any) -> Iterator[None]:
  """Keeps Optuna from writing a line per study."""
  verbosity = optuna.logging.get_verbosity()
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  try:
    yield
  finally:
    optuna.logging.set_verbosity(verbosity)


def _own(settings: Settings) -> dict[str, Any]:
  """Returns the point of the search space that changes nothing."""
  return {
    'scale': 1.0,
    'embed_dim': settings.embed_dim,
    'num_crosses': settings.num_crosses,
    'dropout': settings.dropout,
    'learning_rate': settings.learning_rate,
  }


def _ask(
  study: Any, settings: Settings, size: int
) -> list[tuple[Any, Settings]]:
  """Returns new trials with their settings; all have the sizes of the first."""
  first = study.ask()
  asked = [(first, _suggest(first, settings))]
  sizes = ('scale', 'embed_dim', 'num_crosses')
  for _ in range(size - 1):
    study.enqueue_trial({name: first.params[name] for name in sizes})
    trial = study.ask()
    asked.append((trial, _suggest(trial, settings)))
  return asked


def _suggest(trial: Any, own: Settings) -> Settings:
  scale = trial.suggest_categorical('scale', _SCALES)

  def scaled(widths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(1, round(scale * width)) for width in widths)

  def choose(name: str, usual: tuple[int, ...]) -> int:
    choices = sorted({*usual, getattr(own, name)})
    return trial.suggest_categorical(name, choices)

  low, high = (own.learning_rate * factor for factor in _RATES)
  return dataclasses.replace(
    own,
    widths=scaled(own.widths),
    tower_widths=scaled(own.tower_widths),
    embed_dim=choose('embed_dim', _EMBED_DIMS),
    num_crosses=choose('num_crosses', _CROSSES),
    dropout=trial.suggest_float('dropout', 0, max(_MAX_DROPOUT, own.dropout)),
    learning_rate=trial.suggest_float('learning_rate', low, high, log=True),
  )


def _train(rows: Rows, members: Sequence[Settings]) -> list[Trial]:
  """Trains settings that differ in numbers only, as one program."""
  hyperparams = {
    name: np.asarray([getattr(one, name) for one in members], np.float32)
    for name in ('learning_rate', 'weight_decay', 'dropout')
  }
  settings = members[0]
  encoder = build.make_encoder(settings, rows.tables)
  maker = build.ModelMaker(settings, rows.tasks, encoder)
  try:
    result = fit(rows, settings, maker, hyperparams)
  except training.NonFiniteError:  # all of them end when one of them does
    return [Trial(one, float('nan')) for one in members]
  return [
    Trial(one, _score(result, rows, member))
    for member, one in enumerate(members)
  ]


def _score(result: training.FitResult, rows: Rows, member: int) -> float:
  """Returns the mean primary metric of a member's best epoch.

  A metric that the validation rows do not define is left out, as in `fit`.
  """
  without = progress.undefined(result.history, rows.tasks)
  metrics = result.history[int(result.best_epoch[member]) - 1]['validation']
  counted = [task for task in rows.tasks if task.name not in without]
  if not counted:
    return -float(
      np.mean([metrics[task.name]['loss'][member] for task in rows.tasks])
    )
  return float(
    np.mean(
      [
        metrics[task.name][next(iter(task.metric_fns))][member]
        for task in counted
      ]
    )
  )
