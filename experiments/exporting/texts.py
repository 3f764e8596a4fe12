"""The report of an export, as text."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.exporting import forms
from lplmtl.export import web_form

DIFFERENCE = 'largest_difference_to_jax'
FAR_ROWS = 'rows_far_from_jax'
# Of a row with another bin or category; rounding alone stays below it.
FAR = 1e-4
# Formats of files whose lines C reads; it skips the header, and the mark there.
_READABLE = {'comma-separated, utf-8', 'comma-separated, utf-8-sig'}
_TITLES = {
  'numpy': 'NumPy',
  'c99': 'C99',
  'onnx': 'ONNX',
  'stablehlo': 'StableHLO',
  'packed': 'packed',
  'web': 'web page',
}


def of(report: Mapping[str, Any], target: pathlib.Path) -> str:
  """Returns the lines of a report.

  Args:
    report: the JSON data that `writing` makes.
    target: the folder of the files.
  """
  return '\n'.join([*_sizes(report, target), *_differences(report)])


def _sizes(report: Mapping[str, Any], target: pathlib.Path) -> Iterator[str]:
  for name, count in report['bytes'].items():
    yield f'{count:>12,} bytes  {target / name}'
  for compiler, facts in report.get('compiled', {}).items():
    sections = facts['sections']
    listed = ', '.join(f'{n} {size:,}' for n, size in sections.items())
    if 'stack' in facts:
      listed += f'; stack {facts["stack"]:,}'
    total = sum(sections.values())
    yield f'{total:>12,} bytes  by {compiler} -Os: {listed}'
  seed = report['seed']
  if seed['of'] > 1:
    yield (
      f'Seed {seed["index"]} of {seed["of"]}, counted from 0 (--seed_index); '
      'predictions of lplmtl.tabular are the mean of all'
    )
  if 'rounded_to_bits' in report:
    bits = report['rounded_to_bits']
    yield f'{bits:>12} bits  a weight, rounded after training (also for JAX)'
  counts = {
    'packed' if name == 'packed' else 'unpacked': facts['constants']
    for name, facts in report['forms'].items()
    if 'constants' in facts
  }
  for what, count in counts.items():
    yield f'{count:>12,} bytes  of constants, {what}'
  if 'web' in report['forms']:
    count = report['forms']['web']['webassembly']
    yield f'{count:>12,} bytes  of WebAssembly in {target / web_form.PAGE}'
  yield f'{report["multiply_adds"]:>12,} multiply-adds a row'
  seconds = report.get('seconds_per_row')
  if seconds:
    yield f'{1e6 * seconds:>12.2f} microseconds a row on this machine (cc -O3)'


def _differences(report: Mapping[str, Any]) -> Iterator[str]:
  found = {name: facts[DIFFERENCE] for name, facts in report['forms'].items()}
  rows = f'{forms.NUM_ROWS:,} rows with missing, unseen and extreme values'
  yield _difference(found, rows)
  given = report.get('test_data')
  if given:
    rows = f'the {given["rows"]:,} rows of {given["file"]}'
    yield _difference(given[DIFFERENCE], rows)
    reader = next((n for n in report['bytes'] if n.endswith('_csv.c')), None)
    if reader and given['format'] not in _READABLE:
      yield (
        f'{reader} cannot read lines of {given["file"]} ({given["format"]}): '
        'it needs UTF-8, commas between fields and decimal points'
      )
  if 'packed' in found:
    far = report['forms']['packed'][FAR_ROWS]
    listed = f'{far:,} of the {forms.NUM_ROWS:,} rows'
    if given:
      far = given[FAR_ROWS]['packed']
      listed += f', and {far:,} of the {given["rows"]:,} of {given["file"]},'
    yield (
      f'Packed, {listed} differ by more than {FAR}: an unseen text may have '
      'the hash of a known one, and a number in float32 another bin'
    )
  if 'onnx' in found and found['onnx'] is None:
    yield (
      'ONNX was not compared, for want of a runtime: pip install onnxruntime'
    )


def _difference(found: Mapping[str, float | None], rows: str) -> str:
  listed = ', '.join(
    f'{_TITLES[name]} {difference:.1e}'
    for name, difference in found.items()
    if difference is not None
  )
  return f'Largest difference to JAX over {rows}: {listed or "not measured"}'
