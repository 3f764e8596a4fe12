"""Runs that survive interruptions: the progress of `fit`, saved on disk."""

import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from types import TracebackType
from typing import Any

from lplmtl._keeper_checks import (
  check_callables,
  check_limits,
  unreadable,
  warn_of_rename,
)
from lplmtl._progress_data import (
  FORMAT,
  RestoreError,
  check_run,
  differences,
  from_data,
  json_data,
  to_data,
)
from lplmtl.storage import folders, pytrees, saves
from lplmtl.storage.errors import CheckpointError
from lplmtl.training.keepers import Interrupted
from lplmtl.training.progress import Progress, Record, to_json
from lplmtl.types import PyTree

__all__ = [
  'CheckpointError', 'Checkpoints', 'Interrupted', 'RestoreError',
  'differences', 'to_data',
]  # fmt: skip

# Seconds of training between two pauses. After a SIGTERM a run continues for up
# to this long; schedulers usually grant 30 s. Pauses have no measurable cost.
_SECONDS_BETWEEN_PAUSES = 1.0
# Steps before the first pause, when the time of a step is not yet known: few
# enough to take seconds even for a slow model, enough to time a fast one.
_FIRST_STEPS = 50
# How many seconds of training are worth a save at the end of `fit`, even if no
# save is due: more than it takes to write a checkpoint and to restore it.
_WORTH_SAVING = 10.0


@dataclasses.dataclass(eq=False)
class Checkpoints:
  """Saves the last checkpoints of one run; `fit` takes it as `keeper`.

      with resume.Checkpoints('checkpoints', run={'rate': 0.1}) as keeper:
        result = lplmtl.fit(..., keeper=keeper)

  After any interruption the same lines resume from the newest intact
  checkpoint, with bit-identical results (on GPUs only under
  `--xla_gpu_deterministic_ops`). A checkpoint holds the TrainState of all
  seeds, the best parameters so far, the history, and what is needed in the
  middle of an epoch. It is written in the background, into a folder that gets
  its name once it is complete.

  Attributes:
    directory: the folder for the checkpoints of this run only; `~` is the home
      folder. Anything else in it is neither counted nor removed.
    run: JSON data that describe the run: everything that changes what is
      computed, such as the data, the model and every setting. A checkpoint of
      another run is rejected. Of what is left out here, only the random key and
      the shapes are compared.
    every_steps: saves after every multiple of this many steps in an epoch, and
      at its end; 0 to go by time only.
    every_seconds: saves at least this often (at a pause of `fit`, of which
      there is one every second, or every step if that takes longer).
    num_kept: how many checkpoints are kept.
    stop: once it is set, `fit` saves its progress and raises `Interrupted`.
    environment: JSON data that may change the results without making it another
      run, such as versions. A note lists where they differ from those of the
      checkpoint from which a run resumes.
    check: called before anything is written or removed; what it raises ends the
      run. For folders that several processes may claim.
    on_note: called with one line per fact worth showing, such as a damaged
      checkpoint that was skipped; None for Python's logging.

  Raises:
    ValueError: arguments out of range, or a folder that holds a saved model.
  """

  directory: str | pathlib.Path
  _: dataclasses.KW_ONLY
  run: Mapping[str, Any] | None = None
  every_steps: int = 0
  every_seconds: float = 60.0
  num_kept: int = 2
  stop: threading.Event | None = None
  environment: Mapping[str, Any] | None = None
  check: Callable[[], None] = lambda: None
  on_note: Callable[[str], None] | None = None

  def __post_init__(self) -> None:
    self.directory = self._folder = pytrees.absolute(self.directory)
    check_limits(self.every_steps, self.every_seconds, self.num_kept)
    check_callables(self.stop, self.check, self.on_note)
    pytrees.check_outside(self._folder)
    self.run = json_data('run', self.run)
    self.environment = json_data('environment', self.environment)
    self.every_steps, self.num_kept = int(self.every_steps), int(self.num_kept)
    self.stop = self._stop = self.stop or threading.Event()
    self._is_used = self._is_closed = False
    self._passed_over: set[int] = set()
    self._unsaved: Progress | None = None
    self._worker = futures.ThreadPoolExecutor(1, 'checkpoints')
    self._pending: futures.Future[None] | None = None
    self._saved_at = time.monotonic()
    self._last_pause: tuple[int, float] | None = None  # steps, seconds

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    value: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    try:
      seconds = time.monotonic() - self._saved_at
      if kind is None and self._unsaved and seconds > _WORTH_SAVING:
        self.save(self._unsaved)  # what follows training may be interrupted
      self.wait()
    except Exception:
      if kind is None:  # else another error is on its way already
        raise
    finally:
      self._is_closed = True
      self._worker.shutdown()

  def steps(self) -> list[int]:
    """Lists the steps of this run's checkpoints, intact or not, in order."""
    try:
      return saves.own(self._folder)
    except OSError as error:
      raise unreadable(self._folder, error) from error

  def restore(self, like: Progress) -> Progress | None:
    """Returns the newest intact checkpoint, or None if there is none at all.

    Raises:
      RestoreError: no checkpoint is intact, they belong to another run, or
        something else has the name of one.
      ValueError: this object has served a call of `fit` already.
    """
    if self._is_used or self._is_closed:
      raise ValueError(
        'a keeper serves one call of fit, while it is open: make another '
        'Checkpoints for this call'
      )
    self._is_used = True
    self.check()
    damage = ''
    for step in reversed(self._tidied_steps()):
      folder = saves.path(self._folder, step)
      try:
        arrays, meta = pytrees.read(folder)
      except CheckpointError as error:
        damage = str(error)
        self._passed_over.add(step)
        self._note(logging.WARNING, f'checkpoint skipped: {damage}')
        continue
      progress = self._from_data(like, arrays, meta, folder)
      self._note(logging.INFO, f'resuming from step {step:,} ({folder})')
      self._compare_environment(meta)
      return progress
    if damage:
      raise RestoreError(
        f'no checkpoint in {self._folder} is intact; the oldest: {damage}. '
        'Remove the checkpoints to start afresh'
      )
    return None

  def next_pause(self, progress: Progress) -> int:
    """Returns a step about a second ahead, but not past a step that saves."""
    now, steps = time.monotonic(), _FIRST_STEPS
    if self._last_pause is not None:
      done = progress.total_steps - self._last_pause[0]
      # At least a millisecond: a clock may be coarser than a few steps.
      seconds = max(now - self._last_pause[1], 1e-3)
      steps = max(1, int(done / seconds * _SECONDS_BETWEEN_PAUSES))
    self._last_pause = (progress.total_steps, now)
    last = min(progress.step + steps, progress.num_steps)
    if self.every_steps:
      next_save = (progress.step // self.every_steps + 1) * self.every_steps
      last = min(last, next_save)
    return last

  def is_due(self, progress: Progress) -> bool:
    """Returns whether `save_if_due` has more to do than to look at the time."""
    by_step = self.every_steps and progress.step % self.every_steps == 0
    by_time = time.monotonic() - self._saved_at >= self.every_seconds
    pending = self._pending
    has_failed = (
      pending is not None and pending.done() and pending.exception() is not None
    )
    return bool(by_step or by_time or has_failed or self._stop.is_set())

  def save_if_due(self, progress: Progress) -> None:
    """Saves the progress if that is due, or if `stop` is set.

    Raises:
      CheckpointError: this progress, or the last one, cannot be written.
      Interrupted: `stop` is set; the progress is saved.
    """
    is_due, is_stopped = self.is_due(progress), self._stop.is_set()
    self._unsaved = progress
    if self._pending is not None and self._pending.done():
      self.wait()  # raises if it has failed
    if is_due or is_stopped:
      self.save(progress)
    if is_stopped:
      self.wait()
      raise Interrupted(f'stopped at step {progress.total_steps:,}')

  def until(self, progress: Progress) -> int:
    """The name of `next_pause` up to release 0.1."""
    warn_of_rename('until', 'next_pause')
    return self.next_pause(progress)

  def look(self, progress: Progress) -> None:
    """The name of `save_if_due` up to release 0.1."""
    warn_of_rename('look', 'save_if_due')
    self.save_if_due(progress)

  def save(self, progress: Progress) -> None:
    """Starts to write a checkpoint, once the one before it is done."""
    self.wait()
    self._unsaved = None
    self._saved_at = time.monotonic()
    self._pending = self._worker.submit(
      self._write, progress.total_steps, *to_data(progress), progress.history
    )

  def wait(self) -> None:
    """Waits for the checkpoint being written; raises if it cannot be."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def clear(self) -> None:
    """Removes this run's checkpoints, and the folder if it is empty then."""
    self.wait()
    self.check()
    saves.clear(self._folder)

  def _note(self, level: int, text: str) -> None:
    if self.on_note is None:
      logging.getLogger(__name__).log(level, text)
    else:
      self.on_note(text)

  def _write(
    self,
    step: int,
    arrays: PyTree,
    meta: dict[str, Any],
    history: tuple[Record, ...],
  ) -> None:
    meta |= {
      'format': FORMAT, 'run': self.run, 'history': to_json(history),
      'environment': self.environment,
    }  # fmt: skip
    self.check()
    pytrees.write(saves.path(self._folder, step), arrays, meta, saves.KIND)
    self.check()
    intact = [s for s in self.steps() if s not in self._passed_over - {step}]
    for old in set(self.steps()) - set(intact[-self.num_kept :]):
      folders.remove(saves.path(self._folder, old))
    self._passed_over.clear()

  def _tidied_steps(self) -> list[int]:
    """Removes half-written checkpoints, and lists the steps of the others."""
    try:
      strangers = saves.strangers(self._folder)
      saves.tidy(self._folder)
    except OSError as error:
      raise unreadable(self._folder, error) from error
    if strangers:
      raise RestoreError(
        f'{strangers[0]} is not a checkpoint that lplmtl wrote, or holds more '
        'than that: move it away or choose another folder'
      )
    return self.steps()

  def _from_data(
    self, like: Progress, arrays: PyTree, meta: Any, folder: pathlib.Path
  ) -> Progress:
    try:
      check_run(folder, meta, self.run)
      return from_data(like, arrays, meta, folder)
    except CheckpointError:
      raise
    except Exception as error:  # a forged checkpoint may hold anything
      raise RestoreError(
        f'{folder} does not fit this run: {" ".join(repr(error).split())}'
      ) from error

  def _compare_environment(self, meta: Mapping[str, Any]) -> None:
    # A checkpoint may be older than this field, or than a part of it.
    old, new = meta.get('environment') or {}, self.environment or {}
    known = {name: new[name] for name in new if name in old}
    different = differences(old, known) if old else []
    if different:
      self._note(
        logging.WARNING,
        'note: the run resumes in another environment, and its results may '
        f'differ: {", ".join(different)}',
      )
