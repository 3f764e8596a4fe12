"""What a person sees: progress during a run, tables at its end."""

import contextlib
import html
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich import console as rich_console
from rich import progress as rich_progress
from rich import table as rich_table
from rich.text import Text

from experiments.launcher import output, quality

Console = rich_console.Console
_MOST_LOSSES = 3  # of tasks in the line of an epoch
_BYTES_PER_LINE = 5_000_000  # of a download; a few seconds on a slow connection


def make_console(width: int = 100) -> Console:
  """Returns standard output, with colours and bars on a terminal.

  Elsewhere it prints plain lines, `width` characters wide. What cannot be
  written is dropped (see `output`).
  """
  file: Any = output.safe(sys.stdout)
  console = Console(file=file, highlight=False, markup=False)
  if console.is_terminal:
    return console
  return Console(file=file, highlight=False, markup=False, width=width)


class Epochs(NamedTuple):
  """What to call during a run.

  Attributes:
    epoch: call it with each record of the history.
    note: call it with a line that a person should see.
  """

  epoch: Callable[[Mapping[str, Any]], None]
  note: Callable[[str], None]


@contextlib.contextmanager
def epochs(
  console: Console, num_epochs: int, task_names: Sequence[str]
) -> Iterator[Epochs]:
  """Prints one line per epoch and, on a terminal, a bar below.

  Of many tasks, a first line says that programs are compiled, as that takes so
  long that a person would wonder.
  """
  columns = (
    rich_progress.TextColumn('{task.description}'),
    rich_progress.BarColumn(),
    rich_progress.MofNCompleteColumn(),
    rich_progress.TimeRemainingColumn(),
  )
  with rich_progress.Progress(
    *columns, console=console, transient=True, disable=not console.is_terminal
  ) as bar:
    running = bar.add_task('compiling', total=num_epochs)

    def epoch(record: Mapping[str, Any]) -> None:
      note(epoch_line(record, num_epochs, task_names))
      bar.update(running, completed=record['epoch'], description='training')

    def note(line: str) -> None:
      bar.console.print(line, soft_wrap=True)

    if len(task_names) > quality.MOST_TASKS:
      note(f'compiling the training program for {len(task_names)} tasks')
    with plain_warnings(note):
      yield Epochs(epoch, note)


@contextlib.contextmanager
def plain_warnings(note: Callable[[str], None]) -> Iterator[None]:
  """Prints the library's warnings as lines, without file names and code."""
  with warnings.catch_warnings():
    usual = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any) -> None:
      if category is UserWarning:
        note(f'note: {message}')
      else:
        usual(message, category, *where)

    warnings.showwarning = show  # type: ignore[assignment]
    yield


def epoch_line(
  record: Mapping[str, Any], num_epochs: int, task_names: Sequence[str]
) -> str:
  """Returns losses, primary metrics and loss weights, as means over seeds.

  Weights that are all equal are left out. Of more than three tasks the losses
  are added up, so that the line fits a terminal; of more than six, metrics are
  means over tasks of a kind. The history holds all.
  """
  width = len(str(num_epochs))
  parts = [f'epoch {record["epoch"]:{width}}/{num_epochs}']
  losses = record['losses'].mean(axis=0)
  weights = record['loss_weights'].mean(axis=0)
  is_long = len(task_names) > _MOST_LOSSES
  if is_long:
    parts.append(f'losses {losses.sum():.4f}')
  differ = quality.weights_differ(record['loss_weights'])
  if len(task_names) > quality.MOST_TASKS:
    return ' | '.join([*parts, *_of_many(record, task_names, differ)])
  for i, name in enumerate(task_names):
    text = name if is_long else f'{name} loss {losses[i]:.4f}'
    if 'validation' in record:
      metric, values = next(iter(record['validation'][name].items()))
      text += f' val {metric} {quality.shown(values.mean())}'
    if differ:
      text += f' weight {weights[i]:.3f}'
    parts.append(text)
  return ' | '.join(parts)


def _of_many(
  record: Mapping[str, Any], task_names: Sequence[str], differ: bool
) -> list[str]:
  """Returns mean metrics of many tasks, and the span of their weights."""
  parts = []
  if 'validation' in record:
    first = (next(iter(record['validation'][n].items())) for n in task_names)
    means = quality.means((metric, values.mean()) for metric, values in first)
    parts += [f'val {text}' for text in means]
  if differ:
    weights = record['loss_weights'].mean(axis=0)
    parts.append(f'weights {weights.min():.3f} to {weights.max():.3f}')
  return parts


@contextlib.contextmanager
def download(
  console: Console, name: str
) -> Iterator[Callable[[int, int | None], None]]:
  """Shows a bar for a download or, if not on a terminal, a line per 5 MB.

  Args:
    console: where to show it.
    name: of what is downloaded.

  Yields:
    `show(done, total)`, in bytes; the total may be None.
  """
  columns = (
    rich_progress.TextColumn('{task.description}'),
    rich_progress.BarColumn(),
    rich_progress.DownloadColumn(),
    rich_progress.TransferSpeedColumn(),
  )
  with rich_progress.Progress(
    *columns, console=console, transient=True, disable=not console.is_terminal
  ) as bar:
    running = None
    shown = 0

    def show(done: int, total: int | None) -> None:
      nonlocal running, shown
      if running is None:
        console.print(f'downloading {name}')
        running = bar.add_task('downloading', total=total)
      bar.update(running, completed=done)
      if not console.is_terminal and done - shown >= _BYTES_PER_LINE:
        shown = done
        of = f' of {total / 1e6:.0f}' if total else ''
        console.print(f'downloaded {done / 1e6:.0f}{of} MB')

    yield show


def _counting_bar(console: Console) -> rich_progress.Progress:
  """Returns a bar that says how many of all are done, on a terminal only."""
  return rich_progress.Progress(
    rich_progress.BarColumn(),
    rich_progress.MofNCompleteColumn(),
    rich_progress.TextColumn('{task.description}'),
    console=console,
    transient=True,
    disable=not console.is_terminal,
  )


@contextlib.contextmanager
def fits(
  console: Console, names: Sequence[str]
) -> Iterator[Callable[[], None]]:
  """Shows, on a terminal only, a bar over fits and which one is under way.

  Args:
    console: where to show it.
    names: of the fits, in their order.

  Yields:
    A function to call after each of them.
  """
  with _counting_bar(console) as bar:
    left = iter([*names, ''])
    running = bar.add_task(next(left), total=len(names))
    yield lambda: bar.update(running, advance=1, description=next(left))


@contextlib.contextmanager
def steps(console: Console, total: int) -> Iterator[Callable[[str], None]]:
  """Shows a bar over `total` steps or, if not on a terminal, a line per step.

  Yields:
    `done(what)`, to be called after each step.
  """
  with _counting_bar(console) as bar:
    running = bar.add_task('', total=total)

    def done(what: str) -> None:
      bar.update(running, advance=1, description=what)
      if not console.is_terminal:
        console.print(what, soft_wrap=True)

    yield done


class TextTable(NamedTuple):
  """A table of texts for a terminal, Markdown or HTML.

  Attributes:
    title: what to write above it.
    head: the names of the columns.
    rows: one text per column.
    left: the names of the columns to align left; the others hold numbers.
  """

  title: str
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  left: Sequence[str] = ()

  def to_rich(self) -> rich_table.Table:
    """Returns the table for a terminal."""
    table = rich_table.Table(title=Text(self.title))
    for name in self.head:
      table.add_column(
        Text(name), justify='left' if name in self.left else 'right'
      )
    for row in self.rows:
      table.add_row(*map(Text, row))
    return table

  def to_markdown(self) -> str:
    """Returns Markdown, with the title as a paragraph."""
    rule = ['---' if name in self.left else '---:' for name in self.head]
    lines = [f'| {" | ".join(row)} |' for row in (self.head, rule, *self.rows)]
    return '\n'.join([f'{self.title}:', '', *lines, ''])

  def to_html(self) -> str:
    """Returns HTML, with the title as the caption."""
    sides = ['left' if name in self.left else 'right' for name in self.head]

    def line(tag: str, texts: Sequence[str]) -> str:
      cells = ''.join(
        f'<{tag} class="{side}">{html.escape(text)}</{tag}>'
        for side, text in zip(sides, texts, strict=True)
      )
      return f'<tr>{cells}</tr>'

    body = '\n'.join(line('td', row) for row in self.rows)
    return (
      f'<table><caption>{html.escape(self.title)}</caption>\n'
      f'{line("th", self.head)}\n{body}\n</table>\n'
    )


def plus_minus(value: Mapping[str, Any]) -> str:
  """Formats mean and standard deviation, such as `0.9431 ± 0.0004`."""
  mean, std = value['mean'], value['std']
  if std is None or not math.isfinite(mean):
    return quality.shown(mean)
  return f'{mean:.4f} ± {std:.4f}'
