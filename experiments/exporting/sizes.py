"""What a compiler makes of a C file: the bytes of each section."""

import pathlib
import re
import shutil
import subprocess
import tempfile

# A Cortex-M4 has instructions for float32.
_CORTEX = (
  '-mcpu=cortex-m4',
  '-mthumb',
  '-mfloat-abi=hard',
  '-mfpu=fpv4-sp-d16',
)
_COMPILERS = {
  'cc': ('cc', 'size', ()),
  'arm-none-eabi-gcc': ('arm-none-eabi-gcc', 'arm-none-eabi-size', _CORTEX),
}
_LIMIT = 120  # seconds


def of_source(source: pathlib.Path) -> dict[str, dict[str, int]]:
  """Returns `{compiler: {'code', 'constants', 'writable': bytes}}` at -Os.

  Args:
    source: a C file; headers beside it are found.

  Returns:
    Only compilers that are there, with their `size`.
  """
  found = {}
  for name, (compiler, size, flags) in _COMPILERS.items():
    if shutil.which(compiler) and shutil.which(size):
      sections = _sections(source, compiler, size, flags)
      if sections:
        found[name] = sections
  return found


def _sections(
  source: pathlib.Path, compiler: str, size: str, flags: tuple[str, ...]
) -> dict[str, int]:
  with tempfile.TemporaryDirectory() as folder:
    target = f'{folder}/model.o'
    command = [compiler, '-std=c99', '-Os', *flags, '-c', str(source)]
    try:
      subprocess.run(
        [*command, '-o', target],
        check=True, capture_output=True, timeout=_LIMIT,
      )  # fmt: skip
      listed = subprocess.run(
        [size, '-A', target],
        check=True, capture_output=True, text=True, timeout=_LIMIT,
      ).stdout  # fmt: skip
    except (subprocess.SubprocessError, OSError):
      return {}
  counts = {'code': 0, 'constants': 0, 'writable': 0}
  parts = {'text': 'code', 'rodata': 'constants', 'data': 'writable'}
  # .data.rel.ro holds addresses of constants.
  for section, count in re.findall(
    r'^\.([\w.]+)\s+(\d+)', listed, re.MULTILINE
  ):
    kind = section.split('.')[0]
    if section.startswith('data.rel.ro'):
      kind = 'rodata'
    if kind in ('bss', 'data', 'rodata', 'text'):
      counts[parts.get(kind, 'writable')] += int(count)
  return counts
