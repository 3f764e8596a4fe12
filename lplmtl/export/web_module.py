"""C forms as WebAssembly: compiled by clang, with the functions of Math."""

import pathlib
import re
import shutil
import subprocess

LONGEST = 2**16  # bytes of a line of CSV, with the zero at its end
_LIMIT = 300  # seconds
_TOOLS = {'clang': 'clang', 'wasm-ld': 'lld'}  # and their packages
_FLAGS = (
  '--target=wasm32',
  '-std=c99',
  '-O2',
  # Structs are copied and cleared by instructions of their own: there is no
  # library. Browsers know them since 2021.
  '-mbulk-memory',
  '-fno-builtin',
  '-nostdlib',
  '-Wl,--no-entry,--strip-all,--stack-first',
  # Pages of memory cost nothing until they are used; a model of 100,000 hidden
  # units still fits. Further calls trap instead of overwriting constants.
  '-Wl,-z,stack-size=1048576',
)


class CompilerError(RuntimeError):
  """No module could be made: a tool is missing, or has failed."""


def check_tools() -> None:
  """Raises CompilerError unless there are clang and wasm-ld."""
  absent = [tool for tool in _TOOLS if not shutil.which(tool)]
  if absent:
    packages = ' '.join(_TOOLS[tool] for tool in absent)
    raise CompilerError(
      f'WebAssembly needs clang and wasm-ld; found no {" and no ".join(absent)}'
      f': install {"it" if len(absent) == 1 else "them"} (Debian and Ubuntu: '
      f'apt install {packages}; macOS: brew install llvm lld)'
    )


def compiled(folder: pathlib.Path, name: str = 'model') -> bytes:
  """Returns the module of a model and its reader of CSV.

  It exports `memory`; `line()`, the address of LONGEST bytes for a line;
  `score()`, which returns 0, the column that cannot be read, or less than 0,
  minus the member of the row that cannot be predicted from; and `found()`, the
  address of the predictions, float32.

  Args:
    folder: that of `name.c` and `name_csv.c`; other files are added.
    name: of the files.

  Raises:
    CompilerError: clang or wasm-ld is missing, or cannot make WebAssembly.
  """
  check_tools()
  (folder / 'math.h').write_text(_MATH)
  (folder / 'page.c').write_text(_PAGE.format(name=name, longest=LONGEST))
  files = f'{name}.c', f'{name}_csv.c', 'page.c'
  command = 'clang', *_FLAGS, '-I.', *files, '-o', 'page.wasm'
  try:
    subprocess.run(
      command,
      cwd=folder,
      check=True,
      capture_output=True,
      text=True,
      timeout=_LIMIT,
    )
  except subprocess.CalledProcessError as error:
    found = re.search(r'error: (.*)', error.stderr)
    said = found[1] if found else f'it ended with {error.returncode}'
    raise CompilerError(f'clang cannot make WebAssembly: {said}') from error
  except (subprocess.TimeoutExpired, OSError) as error:
    raise CompilerError(f'clang cannot make WebAssembly: {error}') from error
  return (folder / 'page.wasm').read_bytes()


# What forms take of math.h: `c99` names it. Instructions do some of it,
# JavaScript's Math the rest, in float64, so that results are those of libm but
# for the last bit. Math has no erf: this is formula 7.1.26 of Abramowitz and
# Stegun, "Handbook of Mathematical Functions" (1964), whose error is at most
# 1.5e-7.
_MATH = """#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#define isfinite(x) __builtin_isfinite(x)
#define isnan(x) __builtin_isnan(x)
#define fabs __builtin_fabs
#define fabsf __builtin_fabsf
#define floorf __builtin_floorf
#define ceilf __builtin_ceilf
#define sqrtf __builtin_sqrtf
#define OF_MATH(name) \\
  __attribute__((import_module("Math"), import_name(#name)))
OF_MATH(exp) float expf(float x);
OF_MATH(log1p) float log1pf(float x);
OF_MATH(log1p) double log1p(double x);
OF_MATH(sin) float sinf(float x);
OF_MATH(cos) float cosf(float x);
OF_MATH(pow) float powf(float x, float y);

static inline float erff(float x) {
  const float size = fabsf(x), t = 1.0f / (1.0f + 0.3275911f * size);
  const float sum = 0.254829592f + t * (-0.284496736f + t * (1.421413741f +
                    t * (-1.453152027f + t * 1.061405429f)));
  const float found = 1.0f - t * sum * expf(-x * x);
  return x < 0 ? -found : found;
}
"""
_PAGE = """#include "{name}_csv.h"

#define PUBLIC(name) __attribute__((export_name(#name)))

static char text[{longest}];
static {name}_prediction prediction;

PUBLIC(line) char *line(void) {{ return text; }}

PUBLIC(found) float *found(void) {{ return (float *)(void *)&prediction; }}

PUBLIC(score) int score(void) {{
  {name}_row row;
  const int column = {name}_read(text, &row);
  return column ? column : -{name}_predict(&row, &prediction);
}}
"""
