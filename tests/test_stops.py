"""Signals, and output that can no longer be written."""

import functools
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from experiments.launcher import display, interrupts
from tests import stopping

ROOT = pathlib.Path(__file__).parent.parent
INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize(
  'signals, leaves',
  [
    ([(INT, 0.0)], None),
    ([(INT, 0.0), (INT, 2.0)], 1),
    ([(TERM, 0.0), (TERM, 1.5)], 1),
    # GNU timeout, and wrappers that forward what a terminal sends to everyone.
    ([(TERM, 0.0), (TERM, 0.001)], None),
    ([(INT, 0.0), (INT, 0.001), (INT, 0.4), (INT, 1.1)], 3),
    # From the kernel and, late, from the shell; then the login ends.
    ([(HUP, 0.0), (HUP, 0.003)], None),
    ([(HUP, 0.0), (HUP, 4.0), (TERM, 5.0)], None),
    ([(HUP, 0.0), (TERM, 5.0), (TERM, 8.0)], 2),
    ([(TERM, 0.0), (HUP, 3.0)], None),
  ],
)
def test_what_is_a_second_request(signals, leaves, capsys):
  request = interrupts.Request()
  left = [request.receive(number, now) for number, now in signals]
  expected = [i == leaves for i in range(len(signals))]
  assert left == expected
  assert request.event.is_set() and request.signal == signals[0][0]
  assert request.exit_code == 128 + signals[0][0]
  assert capsys.readouterr().err.count('stopping once') == 1


@pytest.mark.parametrize('package', ['absl', 'numpy', 'jaxlib'])
def test_ctrl_c_during_imports_is_silent(package):
  """Interrupted imports would print a hundred lines, or abort."""
  process = subprocess.Popen(
    [sys.executable, '-X', 'importtime', '-m', 'experiments.census'],
    cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip
  # One line per imported module.
  assert any(f' {package}.' in line for line in process.stdout)
  process.send_signal(INT)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == -INT
  assert all(line.startswith('import time:') for line in output.splitlines())


def test_two_hangups_count_once(capsys):
  """The kernel and the shell both send one: the run still ends properly."""
  left = []
  with interrupts.watch(left.append) as request:
    for _ in range(2):
      os.kill(os.getpid(), HUP)
    assert request.event.wait(10)
  assert not left and request.exit_code == 129


def test_a_second_stop_of_a_notebook_is_a_keyboard_interrupt(
  monkeypatch, capsys
):
  monkeypatch.setattr(interrupts, 'AGAIN', 0.0)
  monkeypatch.setattr(os, '_exit', lambda code: pytest.fail(f'left by {code}'))
  never = threading.Event()
  with (
    pytest.raises(KeyboardInterrupt),
    interrupts.watch() as request,
  ):
    os.kill(os.getpid(), INT)
    assert request.event.wait(10)
    os.kill(os.getpid(), INT)
    never.wait(10)
  assert request.exit_code == 130


def test_a_message_that_cannot_be_written_stops_nothing(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', Gone(BrokenPipeError(32, 'Broken pipe')))
  with interrupts.watch() as request:
    os.kill(os.getpid(), TERM)
    assert request.event.wait(10)
  assert request.exit_code == 143


class Gone(io.StringIO):
  """A stream that cannot be written."""

  def __init__(self, error):
    super().__init__()
    self.error = error

  def write(self, text):
    raise self.error

  flush = lambda self: self.write('')  # noqa: E731


@pytest.mark.parametrize(
  'error',
  [
    BrokenPipeError(32, 'Broken pipe'),
    OSError(5, 'Input/output error'),
    OSError(28, 'No space left on device'),
    BlockingIOError(11, 'Resource temporarily unavailable'),
    ValueError('I/O operation on closed file.'),
  ],
)
def test_text_that_cannot_be_written_is_dropped(error, monkeypatch):
  monkeypatch.setattr(sys, 'stdout', Gone(error))
  console = display.make_console()
  with display.steps(console, 2) as done:
    done('one')
  console.print('more')
  console.file.finish()
  assert console.file.is_lost


def test_characters_that_the_encoding_lacks(monkeypatch):
  raw = io.BytesIO()
  monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(raw, 'ascii'))
  display.make_console().print('0.9431 ± 0.0004, runs/\udce9')
  sys.stdout.flush()
  assert raw.getvalue() == b'0.9431 ? 0.0004, runs/?\n'


def test_a_full_disk_under_a_log_may_have_room_again(monkeypatch):
  stream = io.StringIO()
  monkeypatch.setattr(sys, 'stdout', stream)
  file = display.make_console().file
  with monkeypatch.context() as patch:
    patch.setattr(file, '_stream', Gone(OSError(28, 'No space left')))
    file.write('lost\n')
  file.write('kept\n')
  assert stream.getvalue() == 'kept\n' and file.is_lost


PROGRAM = """
import sys
from experiments.launcher import frame
def main(argv):
  for _ in range(20_000):
    print('a line of a table')
  print('written', file=sys.stderr)
  sys.exit(EXIT)
frame.run(main)
"""


@pytest.mark.parametrize('code, expected', [(0, 0), ("'error: x'", 1)])
def test_exit_codes_of_a_pipeline(code, expected):
  """`| head -1` exits early: no message about it, and no exit code 120."""
  program = PROGRAM.replace('EXIT', str(code))
  process = subprocess.Popen(
    [sys.executable, '-c', program], cwd=ROOT,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert process.stdout.readline() == 'a line of a table\n'
  process.stdout.close()
  error = process.stderr.read()
  process.stderr.close()
  assert process.wait(30) == expected
  assert error == 'written\n' + ('error: x\n' if expected else '')


def test_an_error_stands_apart_from_what_was_printed():
  program = PROGRAM.replace('EXIT', "'error: x'").replace('20_000', '1')
  run = functools.partial(
    subprocess.run, [sys.executable, '-c', program], cwd=ROOT, text=True,
    stdout=subprocess.PIPE, check=False,
  )  # fmt: skip
  shown = run(stderr=subprocess.STDOUT).stdout
  assert shown.endswith('\n\nerror: x\n') and 'a line of a table' in shown
  assert run(stderr=subprocess.PIPE).stderr == 'written\nerror: x\n'


@pytest.mark.parametrize(
  'command',
  ['{0} -m experiments.census --help | head -1', '{0} -c "{1}" >&- 2>&- <&-'],
)
def test_help_and_closed_files(command):
  """A file that is opened later does not receive what is printed."""
  program = (
    'import os; from experiments.launcher import frame; '
    "frame.run(lambda argv: os._exit(os.open('/dev/null', 0) < 3))"
  )
  found = subprocess.run(
    ['bash', '-o', 'pipefail', '-c', command.format(sys.executable, program)],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert found.stderr == ''
  assert found.returncode == 0


RUN = """
import pathlib, sys, time
from experiments.launcher import display, frame, interrupts
def main(argv):
  console = display.make_console()
  with (
    interrupts.watch(interrupts.leave) as request,
    display.epochs(console, 2000, ['a']) as show,
  ):
    for i in range(2000):
      time.sleep(0.01)
      if request.event.is_set():
        time.sleep(0.05)
        pathlib.Path(argv[1]).write_text('kept')
        sys.exit(request.exit_code)
      show.note(f'epoch {i}/2000')
frame.run(main)
"""


@pytest.mark.parametrize('kind', stopping.KINDS)
def test_stops_of_every_kind(kind, tmp_path):
  """`python -m tests.stress_resume` does the same to training runs."""
  how, code = stopping.KINDS[kind]
  command = [sys.executable, '-c', RUN, str(tmp_path / 'kept')]
  assert how(command, lambda: None, tmp_path / 'log') == code
  assert (tmp_path / 'kept').read_text() == 'kept'
