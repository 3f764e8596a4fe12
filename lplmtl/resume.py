"""Training that can be taken up again: the progress of `fit`, kept on disk."""

import json
import logging
import numbers
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.storage import folders, pytrees, saves
from lplmtl.storage.pytrees import CheckpointError
from lplmtl.training.progress import Progress, Record, from_json, to_json
from lplmtl.types import PyTree

FORMAT = 1
# A stretch of training after which `fit` looks up, in seconds: what SIGTERM has
# to wait for.
_STRETCH = 1.0
_FIRST_STEPS = 50
# Seconds of training at the end that are kept, though no save is due.
_WORTH_KEEPING = 10.0


class RestoreError(CheckpointError):
  """Checkpoints that a run cannot go on from."""


class Interrupted(Exception):  # noqa: N818, no error
  """Training was asked to stop, and its progress is kept."""


class Checkpoints:
  """Keeps the last checkpoints of one run; what `fit` takes as `keeper`.

      with resume.Checkpoints('checkpoints', run={'rate': 0.1}) as keeper:
        result = lplmtl.fit(..., keeper=keeper)

  The same lines, after an interruption of any kind, go on where the newest
  whole checkpoint is, and give the bits of a run that was never interrupted (on
  GPUs with `--xla_gpu_deterministic_ops` alone). A checkpoint holds the
  TrainState of all seeds, the best parameters so far, the history and what is
  needed in the middle of an epoch. It is written in the background, into a
  folder that gets its name when it is whole.

  Args:
    directory: folder of the checkpoints of this run alone; `~` is the home
      folder. What else lies there is neither counted nor removed.
    run: JSON data that describe the run, all that changes what is computed: the
      data, the model, every setting. A checkpoint of another run is refused; of
      what is left out here, only the random key and the shapes are compared.
    every_steps: keep the progress whenever so many steps of an epoch are done,
      and at its end; 0 to go by time alone.
    every_seconds: keep it at least so often (where `fit` looks up, which is
      after about a second, or a step if that takes longer).
    num_kept: checkpoints that stay.
    stop: once set, `fit` keeps its progress and raises `Interrupted`.
    environment: JSON data that do not make another run but may change its
      figures, such as versions; where they differ from those of the checkpoint
      that a run goes on from, a note says so.
    check: called before anything is written or removed; what it raises ends
      the run. For who shares a folder, and may have lost it.
    on_note: called with what a person should know, such as a checkpoint that
      was passed over as damaged; None for Python's logging.

  Raises:
    ValueError: arguments that make no sense, or a folder that holds a saved
      model.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    *,
    run: Mapping[str, Any] | None = None,
    every_steps: int = 0,
    every_seconds: float = 60.0,
    num_kept: int = 2,
    stop: threading.Event | None = None,
    environment: Mapping[str, Any] | None = None,
    check: Callable[[], None] = lambda: None,
    on_note: Callable[[str], None] | None = None,
  ):
    self.directory = pytrees.absolute(directory)
    _check_limits(every_steps, every_seconds, num_kept)
    _check_helpers(stop, check, on_note)
    pytrees.check_outside(self.directory)
    self.run = _json_data('run', run)
    self.environment = _json_data('environment', environment)
    self.every_steps = int(every_steps)
    self.every_seconds = every_seconds
    self.num_kept = int(num_kept)
    self.stop = stop or threading.Event()
    self.check = check
    self.on_note = on_note
    self._is_used = self._is_closed = False
    self._passed_over: set[int] = set()
    self._latest: Progress | None = None
    self._worker = futures.ThreadPoolExecutor(1, 'checkpoints')
    self._pending: futures.Future[None] | None = None
    self._saved_at = time.monotonic()
    self._since: tuple[int, float] | None = None

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    value: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    try:
      late = time.monotonic() - self._saved_at > _WORTH_KEEPING
      if kind is None and self._latest is not None and late:
        self.save(self._latest)  # what comes after training may be cut short
      self.wait()
    except Exception:
      if kind is None:  # else there is an error to tell of already
        raise
    finally:
      self._is_closed = True
      self._worker.shutdown()

  def steps(self) -> list[int]:
    """The steps of the own checkpoints on disk, whole or not, oldest first."""
    try:
      return saves.own(self.directory)
    except OSError as error:
      raise _unreadable(self.directory, error) from error

  def restore(self, like: Progress) -> Progress | None:
    """The newest whole checkpoint; None where there is none at all.

    Raises:
      RestoreError: none is whole, they are another run's, or something that
        is no checkpoint bears the name of one.
      ValueError: it has served a call of `fit` already.
    """
    if self._is_used or self._is_closed:
      raise ValueError(
        'one keeper serves one call of fit, while it is open: make another '
        'Checkpoints for this one'
      )
    self._is_used = True
    self.check()
    complaint = ''
    try:
      strangers = saves.strangers(self.directory)
      saves.tidy(self.directory)
    except OSError as error:
      raise _unreadable(self.directory, error) from error
    if strangers:
      raise RestoreError(
        f'{strangers[0]} is no checkpoint that was written here, or holds more '
        'than that: move it away or choose another folder'
      )
    steps = self.steps()
    for step in reversed(steps):
      folder = saves.path(self.directory, step)
      try:
        arrays, meta = pytrees.read(folder)
      except CheckpointError as error:
        complaint = str(error)
        self._passed_over.add(step)
        self._note(logging.WARNING, f'checkpoint passed over: {complaint}')
        continue
      try:
        self._check_run(folder, meta)
        found = _from_data(like, arrays, meta, folder)
      except CheckpointError:
        raise
      except Exception as error:  # what nobody wrote may be anything
        raise RestoreError(
          f'{folder} does not fit this run: {" ".join(repr(error).split())}'
        ) from error
      self._note(logging.INFO, f'going on from step {step:,} ({folder})')
      self._compare_environment(meta)
      return found
    if complaint:
      raise RestoreError(
        f'no checkpoint in {self.directory} is whole; the oldest: {complaint}. '
        'Remove the checkpoints to start afresh'
      )
    return None

  def until(self, now: Progress) -> int:
    """About a second's steps on, but not past a step to keep."""
    clock = time.monotonic()
    steps = _FIRST_STEPS
    if self._since is not None:
      done, began = now.total_steps - self._since[0], clock - self._since[1]
      steps = max(1, int(done / max(began, 1e-3) * _STRETCH))
    self._since = (now.total_steps, clock)
    last = min(now.step + steps, now.num_steps)
    if self.every_steps:
      last = min(last, (now.step // self.every_steps + 1) * self.every_steps)
    return last

  def look(self, now: Progress) -> None:
    """Keeps the progress if it is time to.

    Raises:
      CheckpointError: this progress, or the last one, cannot be written.
      Interrupted: `stop` is set; the progress is kept.
    """
    self._latest = now
    if self._pending is not None and self._pending.done():
      self.wait()  # raises, if it went wrong
    by_step = self.every_steps and now.step % self.every_steps == 0
    by_time = time.monotonic() - self._saved_at >= self.every_seconds
    if by_step or by_time or self.stop.is_set():
      self.save(now)
    if self.stop.is_set():
      self.wait()
      raise Interrupted(f'stopped at step {now.total_steps:,}')

  def save(self, now: Progress) -> None:
    """Starts to write a checkpoint, once the one before it is done."""
    self.wait()
    self._latest = None
    self._saved_at = time.monotonic()
    self._pending = self._worker.submit(
      self._write, now.total_steps, *to_data(now), now.history
    )

  def wait(self) -> None:
    """Until the checkpoint under way is written; raises if it cannot be."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  def clear(self) -> None:
    """Removes own checkpoints, and the folder if nothing else is in it."""
    self.wait()
    self.check()
    saves.clear(self.directory)

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
    pytrees.write(saves.path(self.directory, step), arrays, meta, saves.KIND)
    self.check()
    whole = [s for s in self.steps() if s not in self._passed_over - {step}]
    for old in set(self.steps()) - set(whole[-self.num_kept :]):
      folders.remove(saves.path(self.directory, old))
    self._passed_over.clear()

  def _check_run(self, folder: pathlib.Path, meta: Mapping[str, Any]) -> None:
    if meta.get('format') != FORMAT or 'run' not in meta:
      raise RestoreError(
        f'{folder} has format {meta.get("format")!r:.50}, and this release '
        f'reads format {FORMAT}: remove {self.directory} to start afresh'
      )
    different = differences(meta['run'], self.run)
    if different:
      raise RestoreError(
        f'{self.directory} holds another run, which differs in '
        f'{", ".join(different)}: choose another folder, or remove these '
        'checkpoints'
      )

  def _compare_environment(self, meta: Mapping[str, Any]) -> None:
    old = meta.get('environment')  # a checkpoint may be older than this field
    different = differences(old, self.environment) if old else []
    if different:
      self._note(
        logging.WARNING,
        'note: the run goes on under another environment than it was kept '
        f'under, and may come to other figures: {", ".join(different)}',
      )


def _check_limits(every_steps: Any, every_seconds: Any, num_kept: Any) -> None:
  """Raises a ValueError for limits that make no sense."""
  are_whole = isinstance(every_steps, int | np.integer) and isinstance(
    num_kept, int | np.integer
  )
  are_numbers = are_whole and isinstance(every_seconds, numbers.Real)
  if (
    not are_numbers or every_steps < 0 or num_kept < 1 or not every_seconds >= 0
  ):
    raise ValueError(
      'every_steps and every_seconds must be at least 0, num_kept at least 1 '
      f'(and whole numbers, but for seconds); found {every_steps!r}, '
      f'{every_seconds!r} and {num_kept!r}'
    )


def _check_helpers(stop: Any, check: Any, on_note: Any) -> None:
  """Raises a ValueError for no event, and what cannot be called."""
  is_event = callable(getattr(stop, 'is_set', None))
  if stop is not None and (isinstance(stop, type) or not is_event):
    raise ValueError(f'stop must be a threading.Event, found {stop!r}')
  if not callable(check):
    raise ValueError(f'check must be a function, found {check!r}')
  if on_note is not None and not callable(on_note):
    raise ValueError(f'on_note must be a function of a text, found {on_note!r}')


def _unreadable(directory: pathlib.Path, error: OSError) -> RestoreError:
  return RestoreError(
    f'cannot read the folder of checkpoints {directory}: {error.strerror}'
  )


def _json_data(name: str, data: Mapping[str, Any] | None) -> dict[str, Any]:
  """As JSON gives it back: tuples become lists."""
  try:
    found: dict[str, Any] = json.loads(json.dumps({**(data or {})}))
    return found
  except TypeError as error:
    raise ValueError(
      f'{name} must be a dict of JSON data, such as {{"rate": 0.1}}: {error}; '
      f'found {data!r}'
    ) from error


def differences(old: Any, new: Any, name: str = '') -> list[str]:
  """Where two pieces of JSON data differ: `['rate (0.1, now 0.2)']`."""
  if isinstance(old, dict) and isinstance(new, dict):
    names = [*old, *(key for key in new if key not in old)]
    return [
      text
      for key in names
      for text in differences(
        old.get(key), new.get(key), f'{name}.{key}' if name else key
      )
    ]
  same = json.dumps(old) == json.dumps(new)  # a NaN equals itself
  return [] if same else [f'{name or "value"} ({old}, now {new})']


def _arrays(now: Progress) -> dict[str, PyTree]:
  """What of a progress is arrays."""
  names = ('state', 'best_params', 'metrics', 'choice', 'num_skipped')
  return {name: getattr(now, name) for name in names}


def to_data(now: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
  """A progress as nested dicts of NumPy arrays, and JSON data."""
  data: dict[str, Any] = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(_arrays(now))[0]:
    *above, name = (jax.tree_util.keystr((part,), simple=True) for part in path)
    node = data
    for part in above:
      node = node.setdefault(part, {})
    if _is_key(leaf):
      leaf = jax.random.key_data(leaf)
    node[name] = leaf
  return jax.device_get(data), {'epoch': now.epoch, 'step': now.step}


def _from_data(
  like: Progress,
  arrays: dict[str, Any],
  meta: dict[str, Any],
  folder: pathlib.Path,
) -> Progress:
  """The inverse of `to_data`, with the structure of `like`."""

  def find(path: Any, old: Any) -> Any:
    found: Any = arrays
    for part in path:
      name = jax.tree_util.keystr((part,), simple=True)
      found = found.get(name) if isinstance(found, dict) else None
    raw = jax.random.key_data(old) if _is_key(old) else old
    shape = getattr(found, 'shape', None), getattr(found, 'dtype', None)
    if shape != (raw.shape, raw.dtype):
      other = 'nothing' if found is None else f'a {type(found).__name__}'
      if hasattr(found, 'shape'):
        other = f'{found.dtype}{found.shape}'
      raise RestoreError(
        f'{folder} does not fit this run: expected {raw.dtype}{raw.shape} at '
        f'{jax.tree_util.keystr(path)}, found {other}'
      )
    if _is_key(old):
      return jax.random.wrap_key_data(found, impl=jax.random.key_impl(old))
    return found

  restored = jax.tree_util.tree_map_with_path(find, _arrays(like))
  extra = len(jax.tree.leaves(arrays)) - len(jax.tree.leaves(restored))
  if extra:
    raise RestoreError(
      f'{folder} does not fit this run: it holds {extra} arrays too many, as '
      'of another optimizer or balancer'
    )
  _check_meta(meta, like, folder)
  old, new = restored['state'].key, like.state.key
  if not np.array_equal(jax.random.key_data(old), jax.random.key_data(new)):
    raise RestoreError(
      f'{folder} holds a run of another random key: choose another folder, or '
      'remove these checkpoints'
    )
  return like._replace(
    epoch=meta['epoch'],
    step=meta['step'],
    history=tuple(from_json(record) for record in meta['history']),
    **restored,
  )


def _check_meta(
  meta: Mapping[str, Any], like: Progress, folder: pathlib.Path
) -> None:
  """Raises a RestoreError for how far no run can have come."""
  epoch, step, history = (meta.get(k) for k in ('epoch', 'step', 'history'))
  is_whole = (
    type(epoch) is type(step) is int
    and isinstance(history, list)
    and [r.get('epoch') for r in history if isinstance(r, dict)]
    == list(range(1, epoch + 1))
    and 0 <= step <= like.num_steps
  )
  if not is_whole:
    raise RestoreError(
      f'{folder} does not fit this run: found epoch {epoch!r:.50} and step '
      f'{step!r:.50} with a history that is not of as many epochs'
    )


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
