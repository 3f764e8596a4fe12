"""The finished fits of a comparison, each in files of its own.

A cell is one program's work: a group of settings of one row, or a row's last
fit. Its name is a digest of all that it was computed from, so that a comparison
that was stopped, or is asked for once more, only fits what is missing.
"""

import hashlib
import io
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparison import fits as compare_fits
from experiments.comparison import trees
from experiments.datasets import base as dataset_base
from experiments.launcher import build as runner
from experiments.launcher import (
  display,
  files,
  provenance,
  quality,
  run_folder,
  scoring,
)
from experiments.launcher.options import Config
from lplmtl import training
from lplmtl.types import Task


class Cells:
  """What has been fitted of a Plan, and how to fit the rest.

  Attributes:
    facts: of the data, the same for all rows.
    labels: `{task: [N]}` of the test rows.
  """

  def __init__(
    self,
    plan: Any,
    source: dataset_base.Source,
    folder: pathlib.Path,
    console: Any,
    before_writing: Callable[[], None] = lambda: None,
  ):
    self._plan = plan
    self._before_writing = before_writing
    self._folder = folder / run_folder.CELLS
    self._console = console
    base = plan.base
    self._tasks = source.tasks
    self._source = source
    self._encoded: dict[int, Any] = {}
    first = self._data(base.num_bins)
    self.facts = first.facts
    self.labels = first.test.labels
    for name, own in plan.rows.items():
      for config in plan.tuned(name).values() if own is not None else ():
        self._check(name, config)

  @property
  def tasks(self) -> Sequence[Task]:
    """T tasks."""
    return self._tasks

  def row(self, name: str, is_late: Callable[[], bool]) -> bool:
    """Fits what a row still needs; False if time has run out before its end."""
    for cell in (
      self._tree_cells if self._is_trees(name) else self._tune_cells
    )(name):
      if not self._done(*cell, name, is_late):
        return False
    return self._done(*self._final_cell(name), name, is_late)

  def is_finished(self, name: str) -> bool:
    """Whether all fits of a row are there."""
    try:
      return self._load(self._final_cell(name)[0]) is not None
    except training.NonFiniteError:
      return False

  def tuning(self, name: str) -> dict[str, dict[str, list[float]]] | None:
    """`{setting: {task: [S]}}` primary validation metrics; None before all are
    there.

    Settings that diverged are left out.

    Raises:
      NonFiniteError: all of them did.
    """
    found: dict[str, Any] = {}
    make = self._tree_cells if self._is_trees(name) else self._tune_cells
    for identity, _ in make(name):
      cell = self._load(identity)
      if cell is None:
        return None
      found |= {s: v for s, v in cell[0]['scores'].items() if v is not None}
    if not found:
      raise training.NonFiniteError(
        'losses or gradients are not finite in any setting: lower the learning '
        'rate'
      )
    return found

  def chosen(self, name: str) -> dict[str, str]:
    """`{task: setting}`, the best by mean primary validation metric.

    Networks have one for all tasks, by the mean over tasks; trees, with a model
    for each task, one for each.
    """
    scores = self.tuning(name)
    assert scores is not None, f'{name} is not tuned yet'
    names = [task.name for task in self._tasks]
    if self._is_trees(name):
      return {task: best(scores, [task]) for task in names}
    return dict.fromkeys(names, best(scores, names))

  def final(self, name: str) -> compare_fits.Final:
    """A finished row's last fit."""
    found = self._load(self._final_cell(name)[0])
    assert found is not None, f'{name} is not finished'
    return compare_fits.Final(found[0], found[1])

  def num_fits(self, name: str) -> int:
    """Models trained for a row; the trees train one for each task."""
    plan = self._plan
    is_trees = self._is_trees(name)
    settings = plan.tree_settings if is_trees else plan.tuned(name)
    count = len(settings) * plan.tuning_seeds + plan.base.num_seeds
    return count * len(self._tasks) if is_trees else count

  def environment(self, name: str) -> dict[str, Any]:
    """Versions, device and commit of a finished row's last fit."""
    path = self._path(self._final_cell(name)[0]).with_suffix('.json')
    cell = json.loads(path.read_text(encoding='utf-8'))
    return {k: cell[k] for k in ('versions', 'device', 'commit')}

  def _is_trees(self, name: str) -> bool:
    return self._plan.rows[name] is None

  def _tune_cells(self, name: str) -> list[tuple[dict[str, Any], Any]]:
    cells = []
    for group in compare_fits.groups(self._plan.tuned(name)):
      identity = self._identity(
        'tune', {s: config.identity() for s, config in group.items()}
      )

      def fit(group: dict[str, Config] = group) -> tuple[Any, Any]:
        return {'scores': self._tune(name, group)}, {}

      cells.append((identity, fit))
    return cells

  def _tune(
    self, name: str, group: dict[str, Config]
  ) -> dict[str, dict[str, list[float]] | None]:
    """All settings at once; one by one where one of them fails (None)."""
    data = self._data(next(iter(group.values())).num_bins)
    try:
      return {**compare_fits.tune(group, data, self._tasks)}
    except training.NonFiniteError as error:
      if len(group) == 1:
        self._console.print(
          f'{name}, {next(iter(group)) or "as it is"}: left out, as {error}',
          soft_wrap=True,
        )
        return dict.fromkeys(group)
    found: dict[str, Any] = {}
    for setting, config in group.items():
      found |= self._tune(name, {setting: config})
    return found

  def _tree_cells(self, name: str) -> list[tuple[dict[str, Any], Any]]:
    del name
    plan, cells = self._plan, []
    for setting, fields in plan.tree_settings.items():

      def fit(
        setting: str = setting, fields: Mapping[str, Any] = fields
      ) -> tuple[Any, Any]:
        data = self._data(0)
        scores = {
          task.name: [
            trees.fit(fields, task.name, data, plan.base.seed + s)['validation']
            for s in range(plan.tuning_seeds)
          ]
          for task in self._tasks
        }
        return {'scores': {setting: scores}}, {}

      seeds = [plan.base.seed, plan.tuning_seeds]
      cells.append(
        (self._identity('tune trees', {setting: fields, 'seeds': seeds}), fit)
      )
    return cells

  def _final_cell(self, name: str) -> tuple[dict[str, Any], Any]:
    plan = self._plan
    if self.tuning(name) is None:
      return {'kind': 'not tuned yet'}, None
    chosen = self.chosen(name)
    if self._is_trees(name):
      fields = {task: plan.tree_settings[s] for task, s in chosen.items()}
      seeds = [plan.base.seed + plan.tuning_seeds, plan.base.num_seeds]
      return (
        self._identity('final trees', {**fields, 'seeds': seeds}),
        lambda: self._final_trees(fields, *seeds),
      )
    config = plan.chosen(name, next(iter(chosen.values())))

    def fit() -> tuple[Any, Any]:
      data = self._data(config.num_bins)
      found = compare_fits.final(config, data, self._tasks)
      return found.facts, found.scores

    return self._identity('final', config.identity()), fit

  def _final_trees(
    self, fields: Mapping[str, Any], first_seed: int, num_seeds: int
  ) -> tuple[Any, Any]:
    data = self._data(0)
    facts: dict[str, Any] = {'test': {}, 'validation': {}}
    scores = {}
    sizes, latencies, seconds = [], [], 0.0
    for kind in self._tasks:
      task = kind.name
      fitted = [
        trees.fit(fields[task], task, data, first_seed + s)
        for s in range(num_seeds)
      ]
      scores[task] = np.stack([f['scores'] for f in fitted])
      found = trees.score(kind, scores[task], data.test.labels[task])
      facts['test'][task] = {
        metric: scoring.over_seeds(values) for metric, values in found.items()
      }
      held_out = np.array([f['validation'] for f in fitted])
      facts['validation'][task] = {'auc': scoring.over_seeds(held_out)}
      sizes.append(np.mean([f['parameters'] for f in fitted]))
      latencies.append(np.median([f['latency'] for f in fitted]))
      seconds += sum(f['seconds'] for f in fitted)
    facts |= {
      'parameters': round(float(np.sum(sizes))),
      'latency': float(np.sum(latencies)),
      'seconds': {'train': seconds},
    }
    return facts, scores

  def _data(self, num_bins: int) -> Any:
    if num_bins not in self._encoded:
      self._encoded[num_bins] = self._source.encode(num_bins)
    return self._encoded[num_bins]

  def _check(self, name: str, config: Config) -> None:
    """Refuses sizes that do not fit, before anything is trained."""
    data = self._data(config.num_bins)
    num_train = data.facts['rows']['train']
    runner.check_batch_size(config, num_train)
    parts = runner.make_parts(config, self._tasks, data.tables, num_train)
    example = {k: x[:1] for k, x in data.test.features.items()}
    try:
      runner.check_model(config, parts.model, example)
    except runner.InputError as error:
      raise runner.InputError(f'row {name}: {error}') from error

  def _identity(self, kind: str, what: Any) -> dict[str, Any]:
    base = self._plan.base
    digests = {s: f['sha256'] for s, f in self.facts['files'].items()}
    data = {
      'dataset': self.facts['dataset'], 'files': digests, 'tasks': base.tasks,
      'validation': base.validation, 'split_seed': base.split_seed,
      'rows': self.facts['rows'],
    }  # fmt: skip
    return json.loads(json.dumps({'kind': kind, 'what': what, 'data': data}))

  def _done(
    self,
    identity: dict[str, Any],
    fit: Callable[[], tuple[Any, Any]],
    name: str,
    is_late: Callable[[], bool],
  ) -> bool:
    """Fits a cell that is not there yet, if there is time."""
    if self._load(identity) is not None:
      return True
    if is_late():
      return False
    start = time.perf_counter()
    with display.plain_warnings(self._console.print):
      facts, arrays = fit()
    self._save(identity, facts, arrays)
    spent = time.perf_counter() - start
    self._console.print(_line(name, facts, spent), soft_wrap=True)
    return True

  def _path(self, identity: Any) -> pathlib.Path:
    text = json.dumps(identity, sort_keys=True)
    return self._folder / hashlib.sha256(text.encode()).hexdigest()[:20]

  def _save(self, identity: Any, facts: Any, arrays: Mapping[str, Any]) -> None:
    """Arrays first: a cell is there when its JSON is."""
    self._before_writing()
    path = self._path(identity)
    path.parent.mkdir(exist_ok=True)
    digest = None
    if arrays:
      buffer = io.BytesIO()
      np.savez_compressed(buffer, **arrays)
      files.write_bytes(path.with_suffix('.npz'), buffer.getvalue())
      digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    files.write_json(
      path.with_suffix('.json'),
      {
        'identity': identity, 'facts': facts, 'digest': _digest(facts),
        'arrays': digest, **provenance.environment(),
      },
    )  # fmt: skip

  def _load(self, identity: Any) -> tuple[Any, dict[str, np.ndarray]] | None:
    """A whole cell; None where there is none, or a damaged one."""
    path = self._path(identity)
    try:
      cell = json.loads(path.with_suffix('.json').read_text(encoding='utf-8'))
      if cell['identity'] != identity or cell['digest'] != _digest(
        cell['facts']
      ):
        return None
      if cell['arrays'] is None:
        return cell['facts'], {}
      content = path.with_suffix('.npz').read_bytes()
      if hashlib.sha256(content).hexdigest() != cell['arrays']:
        return None
      with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return cell['facts'], dict(arrays)
    except (OSError, ValueError, KeyError, TypeError):
      return None


def best(scores: Mapping[str, Mapping[str, Any]], tasks: Sequence[str]) -> str:
  """The setting with the best mean of metrics over tasks; ties: the first.

  A task whose metric is NaN in every setting, as where the validation rows do
  not define it, does not count; a setting with another NaN is the worst.
  """
  means = {
    s: {t: np.mean(found[t]) for t in tasks} for s, found in scores.items()
  }
  counted = [
    t for t in tasks if not all(np.isnan(own[t]) for own in means.values())
  ]

  def mean(setting: str) -> float:
    found = np.mean([scores[setting][t] for t in counted or tasks])
    return float(np.nan_to_num(found, nan=-np.inf))

  return max(scores, key=mean)


def _digest(facts: Any) -> str:
  text = json.dumps(facts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _line(name: str, facts: Mapping[str, Any], seconds: float) -> str:
  """What a finished cell found, in one line."""
  if 'scores' in facts:
    found = ', '.join(
      f'{setting or "as it is"}: '
      + ' '.join(f'{np.mean(v):.4f} {task}' for task, v in scores.items())
      for setting, scores in facts['scores'].items()
      if scores is not None
    )
    return f'{name}: on validation {found} ({seconds:.1f} s)'
  found = ' '.join(
    f'{metrics[quality.primary(metrics)]["mean"]:.4f} {task}'
    for task, metrics in facts['test'].items()
  )
  return f'{name}: on test {found} ({seconds:.1f} s)'
