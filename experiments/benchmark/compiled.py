"""Models in C as shared objects, called from this process."""

import ctypes
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.comparison import boosting
from experiments.launcher.errors import InputError

COMPILER = 'cc'
# The rows are those of the self-test. Predictions of a loop are not read, but
# compilers do not know that: the model is another file.
_LOOP = """
#define main self_test
#include "{name}_test.c"
#undef main

int loop(int first, int count) {{
  const int size = (int)(sizeof rows / sizeof *rows);
  int i, problems = 0;
  for (i = first; i < first + count; i++) {{
    {name}_prediction found;
    problems |= {name}_predict(&rows[i % size], &found);
  }}
  return problems;
}}
"""
# LightGBM's function for a single row, of each model.
_TREES = """
#include <stdint.h>

typedef int predict(void *, const double *, int64_t *, double *);

int loop(predict *call, void **models, int num_models, const double *rows,
         int num_rows, int width, int first, int count) {
  int i, j, problems = 0;
  for (i = first; i < first + count; i++)
    for (j = 0; j < num_models; j++) {
      int64_t size;
      double found;
      const double *row = rows + (int64_t)(i % num_rows) * width;
      problems |= call(models[j], row, &size, &found);
    }
  return problems;
}
"""
_DOUBLE, _PROBABILITY = 1, 0  # as LightGBM's c_api.h numbers them

Loop = Callable[[int, int], int]


def check() -> None:
  """Raises InputError if there is no C compiler."""
  if not shutil.which(COMPILER):
    raise InputError(
      f'C needs a compiler, and there is no {COMPILER}: install gcc or clang'
    )


def version() -> str:
  """Returns the first line of what the compiler says about itself."""
  command = [COMPILER, '--version']
  said = subprocess.run(command, capture_output=True, text=True, check=True)
  return said.stdout.splitlines()[0]


def model(folder: pathlib.Path, name: str, level: str) -> Loop:
  """Returns `loop(first, count)`, which scores rows of the self-test in turn.

  Args:
    folder: with the files that `c99.write` made; the shared object joins them.
    name: of the files.
    level: of optimisation, such as `-O2`.

  Raises:
    InputError: the compiler fails.
  """
  driver = folder / f'{name}_loop.c'
  driver.write_text(_LOOP.format(name=name))
  library = folder / f'{name}{level}.so'
  _compile(library, level, driver, folder / f'{name}.c')
  return ctypes.CDLL(str(library)).loop


def trees(
  folder: pathlib.Path, boosters: Sequence[Any], inputs: np.ndarray
) -> Loop:
  """Returns the same for LightGBM's own function for single rows.

  Args:
    folder: for files.
    boosters: LightGBM's, each with an output, cut to the trees to use.
    inputs: `[N, M]` float64.

  Raises:
    InputError: the compiler fails.
  """
  package = pathlib.Path(boosting.package().__file__).parent
  native = ctypes.CDLL(str(next(package.rglob('lib_lightgbm.*'))))
  inputs = np.ascontiguousarray(inputs, np.float64)
  models = [
    _configured(native, booster, inputs.shape[1]) for booster in boosters
  ]
  source, library = folder / 'trees_loop.c', folder / 'trees.so'
  source.write_text(_TREES)
  _compile(library, '-O2', source)
  call = ctypes.CDLL(str(library)).loop
  predict = native.LGBM_BoosterPredictForMatSingleRowFast
  handles = (ctypes.c_void_p * len(models))(*models)
  place = ctypes.c_void_p(inputs.ctypes.data)

  def loop(first: int, count: int) -> int:
    return call(
      predict, handles, len(models), place, *inputs.shape, first, count
    )

  return loop


def _configured(native: Any, booster: Any, width: int) -> int:
  """Returns a handle for the fast prediction of single rows by one thread."""
  model, config = ctypes.c_void_p(), ctypes.c_void_p()
  text, rounds = booster.model_to_string().encode(), ctypes.c_int()
  problem = native.LGBM_BoosterLoadModelFromString(
    text, ctypes.byref(rounds), ctypes.byref(model)
  ) or native.LGBM_BoosterPredictForMatSingleRowFastInit(
    model, _PROBABILITY, 0, -1, _DOUBLE, width, b'num_threads=1',
    ctypes.byref(config),
  )  # fmt: skip
  if problem or config.value is None:
    raise InputError('LightGBM refuses to score single rows')
  return config.value


def _compile(library: pathlib.Path, level: str, *sources: pathlib.Path) -> None:
  command = [
    COMPILER, '-std=c99', level, '-shared', '-fPIC', f'-I{library.parent}',
    *map(str, sources), '-o', str(library), '-lm',
  ]  # fmt: skip
  found = subprocess.run(command, capture_output=True, text=True, check=False)
  if found.returncode:
    raise InputError(
      f'{COMPILER} {level} cannot compile {sources[-1].name}: '
      f'{found.stderr.strip().splitlines()[0]}'
    )
