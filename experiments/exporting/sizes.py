"""What a compiler makes of a C file: bytes of each section and of the stack."""

import pathlib
import re
import shutil
import subprocess
import tempfile

# A Cortex-M4 has instructions for float32.
CORTEX = (
  '-mcpu=cortex-m4',
  '-mthumb',
  '-mfloat-abi=hard',
  '-mfpu=fpv4-sp-d16',
)
HOST = 'cc'
_COMPILERS = {
  HOST: (HOST, 'size', ()),
  'arm-none-eabi-gcc': ('arm-none-eabi-gcc', 'arm-none-eabi-size', CORTEX),
}
LIMIT = 120  # seconds
_CALLS = '-fcallgraph-info=su'  # gcc from release 10 on
_FRAME = re.compile(r'node: { title: "(.*?)" label: ".*?(\d+) bytes \(')
_CALL = re.compile(r'edge: { sourcename: "(.*?)" targetname: "(.*?)"')


def of_source(
  source: pathlib.Path, entry: str
) -> dict[str, dict[str, dict[str, int] | int]]:
  """Returns what compilers make of a C file at -Os.

  Args:
    source: a C file; headers beside it are found.
    entry: the function whose stack is measured.

  Returns:
    `{compiler: {'sections': {'code', 'constants', 'writable': bytes}, 'stack':
    bytes}}`, of compilers that are there with their `size`. The stack is that
    of the deepest calls, without functions of the C library; absent if the
    compiler is no gcc.
  """
  found = {}
  for name, (compiler, size, flags) in _COMPILERS.items():
    if shutil.which(compiler) and shutil.which(size):
      facts = _compiled(source, entry, (compiler, *flags), size)
      if facts:
        found[name] = facts
  return found


def _compiled(
  source: pathlib.Path, entry: str, compiler: tuple[str, ...], size: str
) -> dict[str, dict[str, int] | int]:
  with tempfile.TemporaryDirectory() as folder:
    target = pathlib.Path(folder) / 'model.o'
    command = (*compiler, '-std=c99', '-Os', '-c', str(source))
    try:
      for flags in ((_CALLS,), ()):
        process = run(*command, *flags, '-o', str(target))
        if not process.returncode:
          break
      process.check_returncode()
      listed = run(size, '-A', str(target))
      listed.check_returncode()
    except (subprocess.SubprocessError, OSError):
      return {}
    found: dict[str, dict[str, int] | int] = {
      'sections': _sections(listed.stdout)
    }
    calls = target.with_suffix('.ci')
    if calls.exists():
      found['stack'] = _stack(calls.read_text(), entry)
  return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
  """Runs a command, and keeps what it prints."""
  return subprocess.run(
    command, capture_output=True, text=True, timeout=LIMIT, check=False
  )


def _sections(listed: str) -> dict[str, int]:
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


def _stack(calls: str, entry: str) -> int:
  """Returns the bytes of a function's frame and of those below it.

  Args:
    calls: the graph of calls, as gcc writes it; there is no recursion.
    entry: the function.
  """
  frames = {name: int(count) for name, count in _FRAME.findall(calls)}
  below: dict[str, set[str]] = {}
  for caller, callee in _CALL.findall(calls):
    below.setdefault(caller, set()).add(callee)

  def depth(name: str) -> int:
    return frames.get(name, 0) + max(map(depth, below.get(name, ())), default=0)

  return depth(entry)
