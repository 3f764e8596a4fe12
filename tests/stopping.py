"""Ways of stopping a run from outside, short of SIGKILL.

Each starts a command, waits for its first epoch, stops it, and returns its exit
code; the caller checks whether anything was lost.
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
import time

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
LIMIT = 600.0  # seconds for one process


def _signals(command, numbers, wait, log, **changes):
  """Sends signals a few milliseconds apart; output goes to a file."""
  with log.open('wb') as file:
    process = subprocess.Popen(
      command, stdout=file, stderr=subprocess.STDOUT, **changes
    )
  _await_epoch(process, log.read_bytes)
  wait()
  for number in numbers:
    with contextlib.suppress(ProcessLookupError):
      process.send_signal(number)
    time.sleep(0.004)
  return process.wait(LIMIT)


def _pipeline(command, wait, log):
  """Ctrl-C under `| tee log` reaches all processes, and ends the reader."""
  log.unlink(missing_ok=True)
  process = subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
  )
  tee = subprocess.Popen(
    ['tee', str(log)], stdin=process.stdout, stdout=subprocess.DEVNULL,
    process_group=process.pid,
  )  # fmt: skip
  process.stdout.close()
  _await_epoch(process, lambda: log.read_bytes() if log.exists() else b'')
  wait()
  os.killpg(process.pid, INT)
  error = process.stderr.read()
  process.stderr.close()
  tee.wait(LIMIT)
  code = process.wait(LIMIT)
  assert b'Traceback' not in error and b'BrokenPipe' not in error, error
  return code


def unread(command, wait=lambda: None, number=None):
  """`| head -1`, then a signal; without one, the run completes."""
  process = subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
  )
  while not process.stdout.readline().startswith(b'epoch'):
    assert process.poll() is None, 'it ended before its first epoch'
  process.stdout.close()
  wait()
  if number is not None:
    process.send_signal(number)
  error = process.stderr.read()
  process.stderr.close()
  code = process.wait(LIMIT)
  assert b'Traceback' not in error and b'BrokenPipe' not in error, error
  return code


def _terminal(command, wait, shell_too):
  """A closed terminal: SIGHUP from the kernel, and perhaps from the shell."""
  master, slave = os.openpty()
  # The first process of a group that opens a terminal controls it.
  process = subprocess.Popen(
    ['sh', '-c', 'exec "$@" <>"$OWN" >&0 2>&0', 'sh', *command],
    start_new_session=True,
    env={**os.environ, 'TERM': 'xterm', 'OWN': os.ttyname(slave)},
  )
  seen, is_enough = bytearray(), threading.Event()

  def read():
    with contextlib.suppress(OSError):
      while not is_enough.is_set() and (text := os.read(master, 4096)):
        seen.extend(text)

  reader = threading.Thread(target=read)
  reader.start()
  _await_epoch(process, lambda: bytes(seen))
  os.close(slave)
  wait()
  is_enough.set()
  reader.join(LIMIT)  # the bar moves all the time
  os.close(master)
  if shell_too:
    time.sleep(0.003)
    with contextlib.suppress(ProcessLookupError):
      process.send_signal(HUP)
  return process.wait(LIMIT)


def _await_epoch(process, read):
  began = time.monotonic()
  while not re.search(rb'epoch +\d+/', read()):
    assert process.poll() is None, f'it ended too early: {read()[-500:]}'
    assert time.monotonic() - began < LIMIT, 'no epoch came to its end'
    time.sleep(0.005)


# `{kind: (how, exit code)}`; how takes the command, a wait and a file.
KINDS = {
  'Ctrl-C in a pipeline': (_pipeline, 130),
  'closed terminal': (lambda c, w, log: _terminal(c, w, False), 129),
  'two hangups': (lambda c, w, log: _signals(c, (HUP, HUP), w, log), 129),
  'closed terminal and shell': (lambda c, w, log: _terminal(c, w, True), 129),
  'reader closed': (lambda c, w, log: unread(c, w, TERM), 143),
  'two SIGTERM': (lambda c, w, log: _signals(c, (TERM, TERM), w, log), 143),
  'two SIGINT': (lambda c, w, log: _signals(c, (INT, INT), w, log), 130),
  'hangup, SIGTERM': (lambda c, w, log: _signals(c, (HUP, TERM), w, log), 129),
}
