"""A progress bar for `on_epoch`, for those who want one."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from rich import progress as rich_progress


@contextlib.contextmanager
def progress_bar(
  num_epochs: int, *, console: Any = None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
  """Shows a bar, and the mean primary metric on the validation rows.

  The library itself shows nothing; you pass it on:

      with progress_bar(settings.num_epochs) as show:
        tabular.train(frame, schema, settings, on_epoch=show)

  Args:
    num_epochs: the length of the bar.
    console: a `rich.console.Console`; None for standard output.

  Yields:
    A function to pass as `on_epoch`.
  """
  columns = (
    *rich_progress.Progress.get_default_columns(),
    rich_progress.TextColumn('{task.fields[score]}'),
  )
  with rich_progress.Progress(*columns, console=console) as bar:
    task = bar.add_task('epochs', total=num_epochs, score='')

    def show(record: Mapping[str, Any]) -> None:
      scores = [
        np.mean(next(iter(metrics.values())))
        for metrics in record.get('validation', {}).values()
      ]
      score = f'validation {np.mean(scores):.4f}' if scores else ''
      bar.update(task, completed=record['epoch'], score=score)

    yield show
