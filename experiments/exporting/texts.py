"""The report of an export, as text."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.exporting import forms
from lplmtl.export import web_form

DIFFERENCE = 'largest_difference_to_jax'
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
  if 'packed' in found:
    yield (
      'Packed, an unseen text may have the hash of a known one, and a number '
      'in float32 another bin'
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
