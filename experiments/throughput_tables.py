"""The tables of experiments/throughput.py."""

import statistics
from collections.abc import Iterator
from typing import Any

from rich import table as rich_table


def rate_rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
  """A row a contestant. A training step is counted as three forward passes."""
  first = next(iter(found['rates'].values()))
  for name, turns in found['rates'].items():
    middle = {w: statistics.median(v) for w, v in turns.items() if v}
    flops = 3 * found['facts']['flops_per_example'] * middle['train']
    own = f'{middle["train"] / middle["own"]:.0%}' if 'own' in middle else ''
    yield (
      name,
      f'{middle["train"] / 1e3:.1f}',
      f'{flops / middle["square"]:.0%} of {middle["square"] / 1e9:.0f}',
      own,
      f'{middle["score"] / 1e3:.0f}',
      f'{1e6 / middle["latency"]:.0f}',
      *(
        ratio(first[what], turns[what])
        for what in ('train', 'score', 'latency')
      ),
    )


RATE_HEADS = (
  'contestant', 'train\nk rows/s', 'of matmul\nGF/s', 'of own\nproducts',
  'score\nk rows/s', 'one row\nus', 'train\ntimes', 'score\ntimes',
  'one row\ntimes',
)  # fmt: skip


CAPTION = (
  'times: the first one against this one, median and range of the turns\n'
  'of own products: against the same matrix products by themselves; small '
  'ones cannot be timed well by themselves, and may give more than 100 %'
)


def ratio(ours: list[float], theirs: list[float]) -> str:
  """Median and range of the ratio within a turn."""
  found = [a / b for a, b in zip(ours, theirs, strict=True)]
  middle = statistics.median(found)
  return f'{middle:.2f}\n{min(found):.1f}..{max(found):.1f}'


def process_rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
  """A row a contestant: seconds of each part, and all of it as a ratio."""
  ours = [v['total'] for n, v in found['processes'].items() if ', ' in n][:2]
  for name, spent in found['processes'].items():
    yield (
      name,
      *(f'{statistics.median(values):.1f}' for values in spent.values()),
      *(ratio(spent['total'], own) for own in ours),
    )


PROCESS_HEADS = (
  'contestant', 'import, s', 'data', 'init', 'compile', 'train', 'total',
  'x our cold', 'x our warm',
)  # fmt: skip


def make(title: str, found: dict[str, Any]) -> rich_table.Table:
  """The table of what was measured: rates, or whole processes."""
  is_rates = 'rates' in found
  heads = RATE_HEADS if is_rates else PROCESS_HEADS
  table = rich_table.Table(title=title, caption=CAPTION if is_rates else None)
  for head in heads:
    first = head == heads[0]
    table.add_column(head, justify='left' if first else 'right', no_wrap=first)
  for row in rate_rows(found) if is_rates else process_rows(found):
    table.add_row(*row)
  return table
