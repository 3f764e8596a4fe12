"""The processes that train, as children of the command that a user starts.

The command itself only watches. So a process that JAX aborts, because another
one was lost, still ends with a line for its user. With --local_processes there
are several children, on several hosts one on each. They are forked before JAX
is imported, so that flags need not be handed on.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading
import time
from typing import Any, NamedTuple

from experiments.launcher import interrupts, output
from experiments.launcher.errors import InputError
from experiments.launcher.processes import Place

# How a child ends that knows only that another one is lost (EX_TEMPFAIL), and
# how after a mistake, which it has explained: JAX may end it with 1.
LOST, _MISTAKE = 75, 64
# Seconds from the end of one child to that of all others. On one machine they
# notice it at once, as their connections break; one that hangs, JAX notices
# within 20 (`lplmtl.training.hosts.HEARTBEAT`).
_PATIENCE = 8.0
# What JAX says when it ends a process because another one is gone.
_BEREFT = 'JAX distributed service detected fatal errors'
_TICK = 0.05  # seconds between two looks at the children
_SHOWN = 20  # lines of what a process has said


class _Child(NamedTuple):
  """A process that trains, as its parent sees it.

  Attributes:
    number: of the process; None where only JAX knows it.
    log: holds what its user does not see.
    is_quiet: whether that is everything: all on one machine say the same.
    code: its exit code, or the negative number of the signal that ended it;
      None while it runs.
    was_killed: whether its parent ended it.
  """

  number: int | None
  log: pathlib.Path
  is_quiet: bool
  code: int | None = None
  was_killed: bool = False

  @property
  def name(self) -> str:
    """What to call it."""
    return 'this process' if self.number is None else f'process {self.number}'

  @property
  def has_explained(self) -> bool:
    """Whether it has said why it failed, or was told to end by a signal."""
    return (self.code or 0) > 1 and self.code != LOST

  def said(self) -> list[str]:
    """Returns the lines in its log."""
    if not self.log.exists():
      return []
    return self.log.read_text(errors='replace').splitlines()


def split(place: Place) -> Place:
  """Forks the processes that train; returns in each of these, with its place.

  The parent never returns: it forwards signals to them and exits with their
  exit code. If one of them is lost, it ends all of them.

  Raises:
    InputError: processes cannot be forked here.
  """
  if not hasattr(os, 'fork') or 'jax' in sys.modules:
    raise InputError(
      'several processes need a command, on Linux or macOS: found another '
      'system, or a notebook'
    )
  for stream in (sys.stdout, sys.stderr):
    stream.flush()  # or each child would write it again
  folder = pathlib.Path(tempfile.mkdtemp(prefix='lplmtl-'))
  children: dict[int, _Child] = {}
  asked: list[int] = []

  def forward(number: int, *_: Any) -> None:
    asked.append(number)
    for pid in children:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

  before = {
    number: signal.signal(number, forward)
    for number in interrupts.SIGNALS
    if signal.getsignal(number) != signal.SIG_IGN  # as of nohup
  }
  # Children see the end of their parent, even by SIGKILL, as the end of a pipe.
  alive, parent = os.pipe()
  for number in range(place.num_processes or 1) if place.is_local else [0]:
    own = place._replace(process_id=number) if place.is_local else place
    child = _Child(own.process_id, folder / str(number), number > 0)
    if pid := os.fork():
      children[pid] = child
      continue
    for signal_number, handler in before.items():
      signal.signal(signal_number, handler)
    os.close(parent)
    threading.Thread(target=_follow, args=(alive, folder), daemon=True).start()
    _redirect(child)
    return own
  try:
    code = _explain(_watch(children), asked)
  finally:
    shutil.rmtree(folder, ignore_errors=True)
  sys.exit(code)


def end(code: int) -> None:
  """Ends a child that has said why; at once, as JAX would wait for the others.

  Args:
    code: 1 after a mistake, or as of shells after a signal, or `LOST`.
  """
  for stream in (sys.stdout, sys.stderr):
    output.safe(stream).finish()
  os._exit(_MISTAKE if code == 1 else code)


def _follow(alive: int, folder: pathlib.Path) -> None:
  """Ends a child with its parent, and removes what that has left."""
  os.read(alive, 1)
  shutil.rmtree(folder, ignore_errors=True)
  os._exit(1)


def _redirect(child: _Child) -> None:
  """Hides what a child says that its user need not see.

  The lines of C++ libraries, a page of them if another process is lost; and all
  of them if it is quiet.
  """
  shown = os.dup(1), os.dup(2)
  hidden = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
  os.dup2(hidden, 1)
  os.dup2(hidden, 2)
  for name, number in zip(('stdout', 'stderr'), shown, strict=True):
    if child.is_quiet:
      os.dup2(hidden, number)
    old = getattr(sys, name)
    new = os.fdopen(
      number, 'w', encoding=old.encoding, errors=old.errors,
      buffering=1,  # a line at a time: children share a terminal
    )  # fmt: skip
    setattr(sys, name, output.safe(new))
  os.close(hidden)


def _watch(children: dict[int, _Child]) -> list[_Child]:
  """Waits until all children have ended.

  Args:
    children: by process id; empty in the end.

  Returns:
    How each has ended, from the first to the last.
  """
  ended: list[_Child] = []
  deadline = float('inf')
  was_killed = False
  while children:
    pid, status = os.waitpid(-1, os.WNOHANG)
    if pid:
      code = os.waitstatus_to_exitcode(status)
      child = children.pop(pid)
      ended.append(child._replace(code=code, was_killed=was_killed))
      if code and code < 128:  # all get the same signals
        deadline = min(deadline, time.monotonic() + _PATIENCE)
      continue
    if time.monotonic() > deadline and not was_killed:
      was_killed = True
      for left in children:
        os.kill(left, signal.SIGKILL)
    time.sleep(_TICK)
  return ended


def _explain(ended: list[_Child], asked: list[int]) -> int:
  """Says what no child has said; returns the exit code of the run.

  Args:
    ended: from `_watch`.
    asked: the signals that were forwarded to the children.
  """
  failed = [child for child in ended if child.code]
  if not failed:
    return 0
  if explained := [child for child in failed if child.has_explained]:
    shown = {child.code for child in explained if not child.is_quiet}
    for child in explained:
      if child.code not in shown:
        _show_log(child)
        shown.add(child.code)
    code = explained[0].code or 0
    return 1 if code == _MISTAKE else code
  if asked and failed[0].code == -asked[0]:  # before it could handle signals
    return 128 + asked[0]
  print(
    f'error: {_cause(failed)}, and so have all others: start the same command '
    'again, on every host; it resumes from the last save',
    file=sys.stderr,
  )
  return 1


def _cause(failed: list[_Child]) -> str:
  """Says which child was the first to fail, and shows what it has said."""
  lost = [
    child
    for child in failed
    if child.code != LOST and _BEREFT not in ''.join(child.said())
  ]
  if not lost:
    return 'another process has ended or hangs'
  child = min(lost, key=lambda child: child.was_killed)
  if child.was_killed:
    return f'{child.name} hangs'
  code = child.code or 0
  if code != -signal.SIGKILL:  # which comes from outside
    _show_log(child)
  how = f'signal {-code}' if code < 0 else f'exit code {code}'
  return f'{child.name} has ended ({how})'


def _show_log(child: _Child) -> None:
  for line in child.said()[-_SHOWN:]:
    print(f'{child.name}: {line}', file=sys.stderr)
