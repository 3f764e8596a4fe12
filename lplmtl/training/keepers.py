"""How `fit` asks its keeper, in one process or in several that agree.

In several processes only the keeper of the first one is asked: its clock says
when to pause and when to save, and it alone reads and writes. Where it is, all
stop if any of them is asked to.
"""

import json
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from lplmtl.training import agreement, hosts, parallel
from lplmtl.training.job import Job
from lplmtl.training.progress import Keeper, Progress, from_json, to_json

# The fields of a Progress that hold arrays.
_ARRAYS = ('state', 'best_params', 'metrics', 'choice', 'num_skipped')


class Interrupted(Exception):  # noqa: N818, not an error
  """Training was asked to stop, and its progress is saved."""


class Keeping(Protocol):
  """What the loop of `fit` asks; progress is that of all devices."""

  def restore(self, new: Progress) -> Progress | None:
    """Returns the progress saved last, on the host; or None."""

  def next_pause(self, current: Progress) -> int:
    """Returns the step of the epoch to run to, at most."""

  def save_if_due(self, current: Progress) -> None:
    """Saves the progress if that is due; an exception ends `fit`."""


def make(keeper: Keeper | None, job: Job) -> Keeping:
  """Returns how to ask a keeper.

  Args:
    keeper: see `fit`; in several processes each has one, or none has.
    job: see `Job`.
  """
  if hosts.spans(job.mesh):
    agreement.check_alike({'whether there is a keeper': keeper is not None})
    return _Together(keeper, job)
  return _Alone(keeper, job)


class _Alone(NamedTuple):
  """A single process."""

  keeper: Keeper | None
  job: Job

  def restore(self, new: Progress) -> Progress | None:
    """Returns what the keeper has saved."""
    if self.keeper is None:
      return None
    return self.keeper.restore(_without_padding(self.job, new))

  def next_pause(self, current: Progress) -> int:
    """Returns what the keeper says; the end of the epoch without one."""
    if self.keeper is None:
      return current.num_steps
    return self.keeper.next_pause(current)

  def save_if_due(self, current: Progress) -> None:
    """Passes on what the keeper raises."""
    if self.keeper is not None:
      self.keeper.save_if_due(_without_padding(self.job, current))


class _Together(NamedTuple):
  """One of several processes."""

  keeper: Keeper | None
  job: Job

  def restore(self, new: Progress) -> Progress | None:
    """Sends all what the keeper of the first process has saved.

    As bytes: JAX would cut 64-bit numbers, such as those of the choice, in two.
    """
    if self.keeper is None:
      return None
    like, saved = _without_padding(self.job, new), b''
    keeper = self.keeper

    def read() -> None:
      nonlocal saved
      found = keeper.restore(like)
      saved = b'' if found is None else _pack(found)

    self._in_first(read)
    content = agreement.send(saved)
    return _unpack(like, content) if content else None

  def next_pause(self, current: Progress) -> int:
    """Returns what the keeper of the first process says."""
    if self.keeper is None:
      return current.num_steps
    pause = self.keeper.next_pause(current) if hosts.is_first() else 0
    return int(agreement.exchange(np.array(pause, np.int32))[0])

  def save_if_due(self, current: Progress) -> None:
    """Saves in the first process; all stop if one of them is asked to.

    Raises:
      HostsError: the processes have computed different numbers, or the first
        one has failed.
      Interrupted: one was asked to stop; in all of them.
    """
    keeper, stop = self.keeper, getattr(self.keeper, 'stop', None)
    is_asked = stop is not None and stop.is_set()
    is_due = (
      keeper is not None and hosts.is_first() and _is_due(keeper, current)
    )
    votes = agreement.exchange(
      np.array([is_asked, is_due, _digest(current)], np.int32)
    )
    if (votes[:, 2] != votes[0, 2]).any():
      raise hosts.HostsError(
        'the processes have computed different losses from the same rows: '
        'give them the same packages and the same kind of device'
      )
    is_asked = bool(votes[:, 0].any())
    if is_asked and stop is not None:
      stop.set()
    # At its end a keeper may save what it was shown last.
    if keeper is None:
      return
    if not (votes[:, :2].any() or self.job.is_over(current)):
      return
    progress = _without_padding(self.job, current)
    self._in_first(lambda: keeper.save_if_due(progress))
    if is_asked:
      raise Interrupted(f'stopped at step {current.total_steps:,}')

  def _in_first(self, call: Callable[[], None]) -> None:
    """Calls the keeper in the first process; raises in all if it does."""
    error: Exception | None = None
    try:
      agreement.attend(call if hosts.is_first() else lambda: None)
    except Exception as caught:
      error = caught
    kind = 'interrupted' if isinstance(error, Interrupted) else 'failed'
    said = json.dumps([kind, str(error)]) if error else ''
    said = agreement.send(said.encode()).decode()
    if error is not None:
      raise error
    if said:
      kind, text = json.loads(said)
      if kind == 'interrupted':
        raise Interrupted(text)
      raise hosts.HostsError(f'process 0: {text}')


def _is_due(keeper: Any, current: Progress) -> bool:
  """Whether to show the progress to a keeper: always, if it cannot say."""
  return not hasattr(keeper, 'is_due') or bool(keeper.is_due(current))


def _digest(current: Progress) -> int:
  """Returns 32 bits that differ if the losses of two processes do."""
  losses = np.ascontiguousarray(current.metrics['losses'])
  if not current.step and current.history:  # an epoch has just ended
    losses = np.ascontiguousarray(current.history[-1]['losses'])
  return zlib.crc32(losses.view(np.uint8)) - 2**31


def _without_padding(job: Job, current: Progress) -> Progress:
  """Drops the seeds that pad S; gathers what other processes hold."""
  state, best_params = hosts.whole(
    (current.state, current.best_params), job.mesh
  )
  if len(state.step) != job.num_seeds:
    state, best_params = parallel.first_seeds(
      (state, best_params), job.num_seeds
    )
  return current._replace(state=state, best_params=best_params)


def _pack(progress: Progress) -> bytes:
  """Returns a progress as bytes, for `_unpack` in another process."""
  meta = json.dumps(
    {
      'epoch': progress.epoch, 'step': progress.step,
      'history': to_json(progress.history),
    }
  ).encode()  # fmt: skip
  arrays = [_raw(leaf).tobytes() for leaf in _leaves(progress)]
  return b''.join([len(meta).to_bytes(8, 'little'), meta, *arrays])


def _unpack(like: Progress, content: bytes) -> Progress:
  """Returns the progress that `_pack` was given.

  Args:
    like: one with the same structure, shapes and dtypes.
    content: from `_pack`.
  """
  size = int.from_bytes(content[:8], 'little')
  meta, start = json.loads(content[8 : 8 + size]), 8 + size
  leaves = []
  for leaf in _leaves(like):
    raw = _raw(leaf)
    flat = np.frombuffer(content, raw.dtype, raw.size, start)
    array: Any = flat.reshape(raw.shape).copy()
    start += raw.nbytes
    if hosts.is_key(leaf):
      array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
    leaves.append(array)
  structure = jax.tree.structure([getattr(like, name) for name in _ARRAYS])
  arrays = jax.tree.unflatten(structure, leaves)
  return like._replace(
    epoch=meta['epoch'],
    step=meta['step'],
    history=tuple(from_json(record) for record in meta['history']),
    **dict(zip(_ARRAYS, arrays, strict=True)),
  )


def _leaves(progress: Progress) -> list[Any]:
  return jax.tree.leaves([getattr(progress, name) for name in _ARRAYS])


def _raw(leaf: Any) -> np.ndarray:
  if hosts.is_key(leaf):
    leaf = jax.random.key_data(leaf)
  return np.asarray(leaf)


def current_keeper(keeper: Any) -> Any:
  """Returns a keeper with the method names of this release.

  Up to release 0.1 `next_pause` was called `until`, and `save_if_due` `look`.
  """
  is_old = hasattr(keeper, 'until') and hasattr(keeper, 'look')
  if not is_old or hasattr(keeper, 'next_pause') or isinstance(keeper, type):
    return keeper
  warnings.warn(
    "a keeper's until is now called next_pause, and look save_if_due",
    DeprecationWarning,
    stacklevel=3,
  )
  return _OldKeeper(keeper.restore, keeper.until, keeper.look)


class _OldKeeper(NamedTuple):
  restore: Callable[[Progress], Progress | None]
  next_pause: Callable[[Progress], int]
  save_if_due: Callable[[Progress], None]
