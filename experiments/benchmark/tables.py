"""The tables of experiments/throughput.py."""

import statistics
from collections.abc import Iterator
from typing import Any

from rich import table as rich_table


def rate_rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
  """`{head: text}` of a contestant, of what was measured.

  A training step is counted as three forward passes.
  """
  first = next(iter(found['rates'].values()))
  for name, turns in found['rates'].items():
    middle = {w: statistics.median(v) for w, v in turns.items() if v}
    row = {'contestant': name}
    if 'train' in middle:
      row['train\nk rows/s'] = f'{middle["train"] / 1e3:.1f}'
      if 'square' in middle:
        flops = 3 * found['facts']['flops_per_example'] * middle['train']
        share = f'{flops / middle["square"]:.0%}'
        row['of matmul\nGF/s'] = f'{share} of {middle["square"] / 1e9:.0f}'
      if 'own' in middle:
        row['of own\nproducts'] = f'{middle["train"] / middle["own"]:.0%}'
    if 'score' in middle:
      row['score\nk rows/s'] = f'{middle["score"] / 1e3:.0f}'
    if 'latency' in middle:
      row['one row\nus'] = f'{1e6 / middle["latency"]:.0f}'
    for what, title in TIMES.items():
      if what in middle:
        row[f'{title}\ntimes'] = ratio(first[what], turns[what])
    yield row


TIMES = {'train': 'train', 'score': 'score', 'latency': 'one row'}


NOTES = {
  'times': 'the first one against this one, median and range of the turns',
  'of own products': (
    'against the same matrix products by themselves; small ones cannot be '
    'timed well by themselves, and may give more than 100 %'
  ),
}


def ratio(ours: list[float], theirs: list[float]) -> str:
  """Median and range of the ratio within a turn."""
  found = [a / b for a, b in zip(ours, theirs, strict=True)]
  middle = statistics.median(found)
  return f'{middle:.2f}\n{min(found):.1f}..{max(found):.1f}'


def process_rows(found: dict[str, Any]) -> Iterator[dict[str, str]]:
  """`{head: text}` of a contestant: seconds of each part, and ratios of all."""
  ours = [v['total'] for n, v in found['processes'].items() if ', ' in n][:2]
  for name, spent in found['processes'].items():
    row = {'contestant': name}
    for part, values in spent.items():
      head = 'import, s' if part == 'import' else part
      row[head] = f'{statistics.median(values):.1f}'
    for which, own in zip(('cold', 'warm'), ours, strict=True):
      row[f'x our {which}'] = ratio(spent['total'], own)
    yield row


def make(title: str, found: dict[str, Any]) -> rich_table.Table:
  """The table of what was measured: rates, or whole processes."""
  rows = list((rate_rows if 'rates' in found else process_rows)(found))
  notes = [
    f'{what}: {note}'
    for what, note in NOTES.items()
    if any(what in head.replace('\n', ' ') for head in rows[0])
  ]
  table = rich_table.Table(title=title, caption='\n'.join(notes))
  for i, head in enumerate(rows[0]):
    table.add_column(
      head, justify='right' if i else 'left', no_wrap=head == 'contestant'
    )
  for row in rows:
    table.add_row(*(row.get(head, '') for head in rows[0]))
  return table
