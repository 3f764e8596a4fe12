"""How long a compiled model takes for a row on this machine."""

import pathlib
import shutil
import subprocess
import tempfile

from experiments.exporting import sizes

# A turn takes at least so many clock ticks, for the clock to tell; the least of
# several turns is the least disturbed by others.
_SOURCE = """
#define main self_test
#include "{name}_test.c"
#undef main
#include <time.h>

int main(void) {{
  const int count = (int)(sizeof rows / sizeof *rows);
  const clock_t least = CLOCKS_PER_SEC / 100;
  double best = 1;
  int repeats = 1, turn, i, j;
  volatile int problems = 0;
  for (turn = 0; turn < 9;) {{
    const clock_t start = clock();
    clock_t taken;
    for (i = 0; i < repeats; i++)
      for (j = 0; j < count; j++) {{
        {name}_prediction found;
        problems = problems + {name}_predict(&rows[j], &found);
      }}
    taken = clock() - start;
    if (taken < least) {{
      repeats *= 2;
      continue;
    }}
    turn++;
    if ((double)taken / CLOCKS_PER_SEC / repeats / count < best)
      best = (double)taken / CLOCKS_PER_SEC / repeats / count;
  }}
  printf("%.6g", best);
  return 0;
}}
"""


def seconds_per_row(folder: pathlib.Path, name: str) -> float | None:
  """Returns the CPU seconds of one row at -O3, over the self-test's rows.

  Args:
    folder: with the C files of a model.
    name: of the files.

  Returns:
    None if there is no C compiler, or the program fails.
  """
  if not shutil.which(sizes.HOST):
    return None
  with tempfile.TemporaryDirectory() as place:
    source = pathlib.Path(place) / 'timing.c'
    source.write_text(_SOURCE.format(name=name))
    program = str(source.with_suffix('.exe'))
    files = str(folder / f'{name}.c'), str(source)
    command = sizes.HOST, '-std=c99', '-O3', f'-I{folder}', *files
    try:
      sizes.run(*command, '-o', program, '-lm').check_returncode()
      process = sizes.run(program)
      process.check_returncode()
    except (subprocess.SubprocessError, OSError):
      return None
  return float(process.stdout)
