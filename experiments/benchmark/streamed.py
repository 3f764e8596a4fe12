"""Compares training on rows in memory with rows that are read in chunks."""

import contextlib
import json
import multiprocessing
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple, TypeVar

from experiments.benchmark import out, streamed_rows
from experiments.benchmark.streamed_rows import ENCODED, MEMORY, PARQUET
from experiments.launcher import display, output, provenance
from experiments.launcher.display import Console, TextTable
from experiments.launcher.errors import InputError
from lplmtl.storage import saves

_T = TypeVar('_T')

_WORKER = 'benchmark.streamed_worker'
_FORMS = (MEMORY, ENCODED, PARQUET)
_KILLS = 2  # of a process that trains, each after it has saved
_PATIENCE = 120.0  # seconds until it must have


class Asked(NamedTuple):
  """What is measured.

  Attributes:
    measures: some of `rate`, `memory`, `sorted` and `resume`.
    num_rows: of the large table.
    small_rows: of the small one.
    turns: of each contestant.
    folder: where the rows are written, for as long as they are needed.
    config: of the workers.
    out: JSON file for the figures, or None.
  """

  measures: tuple[str, ...]
  num_rows: int
  small_rows: int
  turns: int
  folder: pathlib.Path
  config: dict[str, Any]
  out: pathlib.Path | None


def measure(asked: Asked) -> None:
  """Measures what is asked for, and prints a line or a table for each.

  Raises:
    InputError: a process failed, or figures cannot be written.
  """
  console = display.make_console()
  if asked.out is not None:
    out.check(asked.out)
  measured: dict[str, Any] = {}
  with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
    place = pathlib.Path(scratch)
    if {'rate', 'memory'} & {*asked.measures}:
      measured |= _rates(asked, place, console)
    if 'sorted' in asked.measures:
      measured['sorted'] = _sorted(asked, place, console)
    if 'resume' in asked.measures:
      measured['resume'] = _resume(asked, place, console)
  if asked.out is None:
    output.refuse_loss()
    return
  facts = {
    'config': {**asked._asdict(), 'folder': '', 'out': ''},
    'command': sys.argv, **provenance.environment(),
  }  # fmt: skip
  out.write(asked.out, {'measured': measured, **facts})


@contextlib.contextmanager
def _table(
  folder: pathlib.Path, num_rows: int, console: Console, *,
  is_sorted: bool = False,
) -> Iterator[pathlib.Path]:  # fmt: skip
  """Writes a table as Parquet and as encoded rows; removes it afterwards."""
  start = time.perf_counter()
  folder.mkdir()
  try:
    files = folder / 'files'
    _alone(streamed_rows.write_parquet, files, num_rows, is_sorted)
    generated = time.perf_counter() - start
    took = _alone(streamed_rows.write_encoded, folder)
    console.print(
      f'{num_rows:,} rows: {_gigabytes(files):.2f} GB of Parquet generated in '
      f'{generated:.0f} s; tables fitted in {took.fitted:.0f} s; '
      f'{_gigabytes(folder / "rows"):.2f} GB of encoded rows written in '
      f'{took.done - took.fitted:.0f} s, in {took.memory / 1e6:,.0f} MB of '
      'memory'
    )
    yield folder
  finally:
    shutil.rmtree(folder)


def _alone(function: Callable[..., _T], *arguments: Any) -> _T:
  """Calls a function in a process of its own, whose memory is its own, too."""
  with futures.ProcessPoolExecutor(
    1, mp_context=multiprocessing.get_context('spawn')
  ) as pool:
    return pool.submit(function, *arguments).result()


def _gigabytes(folder: pathlib.Path) -> float:
  return sum(path.stat().st_size for path in folder.iterdir()) / 1e9


class _Process:
  """A worker that answers requests."""

  def __init__(self, config: dict[str, Any]):
    command = [sys.executable, '-m', 'lplmtl', _WORKER, json.dumps(config)]
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    self._form = config['form']
    self._answer()

  def ask(self, what: str) -> Any:
    """Returns the answer to a request."""
    self.send(what)
    return self._answer()

  def send(self, what: str) -> None:
    """Sends a request."""
    assert self._process.stdin is not None
    self._process.stdin.write(f'{what}\n')
    self._process.stdin.flush()

  def _answer(self) -> Any:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    if not line:
      raise InputError(
        f'the process for {self._form} stopped: see what it printed above'
      )
    return json.loads(line)

  def close(self) -> None:
    """Lets the process end."""
    assert self._process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    self._process.wait()

  def kill(self) -> None:
    """Ends the process as a power cut would: by SIGKILL."""
    self._process.kill()
    self._process.wait()


def _rates(
  asked: Asked, folder: pathlib.Path, console: Console
) -> dict[str, Any]:
  """Times all forms of the large table in turns; the memory of both tables."""
  sizes = [asked.num_rows]
  if 'memory' in asked.measures:
    sizes.insert(0, asked.small_rows)
  found: dict[str, Any] = {}
  for num_rows in sizes:
    forms = _FORMS if num_rows == asked.num_rows else _FORMS[1:]
    with _table(folder / 'table', num_rows, console) as place:
      found[str(num_rows)] = _turns(asked, place, forms)
  large = found[str(asked.num_rows)]
  lines = [
    (f'{int(rows):,}', form, *_cells(answers, large[MEMORY]))
    for rows, forms in found.items()
    for form, answers in forms.items()
  ]
  head = (
    'rows', 'form', 'rows/s', 'of in memory', 'rows/CPU s', 'anonymous MB',
  )  # fmt: skip
  console.print(TextTable('Training', head, lines, left=('form',)).to_rich())
  return found


def _turns(
  asked: Asked, place: pathlib.Path, forms: tuple[str, ...]
) -> dict[str, list[dict[str, float]]]:
  config = {**asked.config, 'folder': str(place)}
  found: dict[str, list[dict[str, float]]] = {form: [] for form in forms}
  running: list[_Process] = []
  try:
    for form in forms:
      running.append(_Process({**config, 'form': form}))
    for turn in range(asked.turns):
      both = list(zip(forms, running, strict=True))
      for form, process in both[:: 1 if turn % 2 == 0 else -1]:
        found[form].append(process.ask('rate'))
  finally:
    for process in running:
      process.close()
  return found


def _cells(
  answers: list[dict[str, float]], memory: list[dict[str, float]]
) -> list[str]:
  """Returns medians over the turns; ratios are taken within a turn."""
  rates = [a['rows'] / a['seconds'] for a in answers]
  of_memory = [a['rows'] / a['seconds'] for a in memory]
  ratio = '-'
  if len(rates) == len(of_memory):
    shares = [x / y for x, y in zip(rates, of_memory, strict=True)]
    ratio = f'{100 * statistics.median(shares):.1f} %'
  by_cpu = statistics.median(a['rows'] / a['cpu'] for a in answers)
  most = max(a['anonymous'] for a in answers)
  return [
    f'{statistics.median(rates):,.0f}', ratio, f'{by_cpu:,.0f}',
    f'{most / 1e6:,.0f}',
  ]  # fmt: skip


def _sorted(
  asked: Asked, folder: pathlib.Path, console: Console
) -> dict[str, Any]:
  """Compares test AUC after training on sorted and on mixed files."""
  found: dict[str, Any] = {}
  for is_sorted in (False, True):
    with _table(
      folder / 'table', asked.small_rows, console, is_sorted=is_sorted
    ) as place:
      for form in (ENCODED, PARQUET):
        name = f'{form} of {"sorted" if is_sorted else "mixed"} files'
        config = {**asked.config, 'folder': str(place), 'form': form}
        process = _Process(config)
        try:
          found[name] = process.ask('auc')
        finally:
          process.close()
  first = next(iter(found.values()))
  lines = []
  for name, seeds in found.items():
    cells = []
    for task in streamed_rows.LABELS:
      mean = statistics.mean(seed[task] for seed in seeds)
      base = statistics.mean(seed[task] for seed in first)
      cells.append(f'{mean:.4f} ({mean - base:+.4f})')
    lines.append((name, *cells))
  head = ('rows', *(f'AUC {name}' for name in streamed_rows.LABELS))
  table = TextTable('Sorted by click', head, lines, left=('rows',))
  console.print(table.to_rich())
  return found


def _resume(
  asked: Asked, folder: pathlib.Path, console: Console
) -> dict[str, Any]:
  """Kills a process in the middle of an epoch; compares the bits."""
  found: dict[str, Any] = {}
  with _table(folder / 'table', asked.small_rows, console) as place:
    for form in (ENCODED, PARQUET):
      config = {**asked.config, 'folder': str(place), 'form': form}
      digests, resumed = [], []
      for name, kills in (('whole', 0), ('killed', _KILLS)):
        checkpoints = folder / f'{form} {name}'
        own = {**config, 'checkpoints': str(checkpoints)}
        saved = 0
        for _ in range(kills):
          process = _Process(own)
          process.send('digest')
          saved = _wait_for_save(checkpoints, saved)
          process.kill()
        process = _Process(own)
        try:
          answer = process.ask('digest')
        finally:
          process.close()
        digests.append(answer['sha256'])
        resumed += answer['resumed']
      found[form] = {'digests': digests, 'resumed': resumed}
      same = 'the same bits' if len({*digests}) == 1 else 'OTHER BITS'
      where = resumed[-1].partition(' (')[0] if resumed else 'never resumed'
      console.print(f'{form}: killed {_KILLS} times, {where}: {same}')
  return found


def _wait_for_save(folder: pathlib.Path, last: int) -> int:
  """Waits for a checkpoint after a step; returns its step."""
  end = time.monotonic() + _PATIENCE
  while time.monotonic() < end:
    found = saves.own(folder)
    if found and found[-1] > last:
      return found[-1]
    time.sleep(0.05)
  raise InputError(
    f'a process saved nothing in {_PATIENCE:.0f} s: lower --small_rows'
  )
