"""The tables of a benchmark."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from rich import table as rich_table

from experiments.benchmark.protocol import Config

# What is compared with the first contestant, and its heading.
TIMES = {'train': 'train', 'score': 'score', 'latency': 'one row'}
NOTES = {
  'times': (
    'how many times as fast the first contestant is; median and range of the '
    'turns'
  ),
  'of own products': (
    'relative to the same matrix products on their own; small ones cannot be '
    'timed well that way, so it may exceed 100 %'
  ),
}
PASSES = 3  # forward passes with as many FLOPs as a training step


def make(title: str, measured: Config) -> rich_table.Table:
  """Returns the table of what `turns.rates` or `turns.processes` measured."""
  is_rates = 'rates' in measured
  rows = list(rate_rows(measured) if is_rates else process_rows(measured))
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


def rate_rows(measured: Config) -> Iterator[dict[str, str]]:
  """Yields `{head: text}` per contestant, for whatever was measured."""
  flops_per_row = measured['facts']['flops_per_example']
  first = next(iter(measured['rates'].values()))
  for name, turns in measured['rates'].items():
    middle = {what: statistics.median(v) for what, v in turns.items() if v}
    yield {
      'contestant': name,
      **_rates(middle, flops_per_row),
      **{
        f'{title}\ntimes': ratio(first[what], turns[what])
        for what, title in TIMES.items()
        if what in middle
      },
    }


def process_rows(measured: Config) -> Iterator[dict[str, str]]:
  """Yields `{head: text}` per contestant: seconds of parts, total ratios."""
  values = measured['processes']
  ours = [v['total'] for name, v in values.items() if ', ' in name][:2]
  for name, spent in values.items():
    row = {'contestant': name}
    for part, seconds in spent.items():
      head = 'import, s' if part == 'import' else part
      row[head] = f'{statistics.median(seconds):.1f}'
    for cache, total in zip(('cold', 'warm'), ours, strict=True):
      row[f'x our {cache}'] = ratio(spent['total'], total)
    yield row


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
  """Returns the median and the range of the ratios within turns."""
  ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
  middle = statistics.median(ratios)
  return f'{middle:.2f}\n{min(ratios):.1f}..{max(ratios):.1f}'


def _rates(middle: Mapping[str, float], flops_per_row: int) -> dict[str, str]:
  """Returns rates as texts; `middle` holds units per second."""
  row = {}
  if 'train' in middle:
    row['train\nk rows/s'] = f'{middle["train"] / 1e3:.1f}'
    if 'square' in middle:
      share = PASSES * flops_per_row * middle['train'] / middle['square']
      peak = middle['square'] / 1e9
      row['of matmul\nGF/s'] = f'{share:.0%} of {peak:.0f}'
    if 'products' in middle:
      share = middle['train'] / middle['products']
      row['of own\nproducts'] = f'{share:.0%}'
  if 'score' in middle:
    row['score\nk rows/s'] = f'{middle["score"] / 1e3:.0f}'
  if 'latency' in middle:
    row['one row\nus'] = f'{1e6 / middle["latency"]:.0f}'
  return row
