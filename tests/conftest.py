"""What every test runs under."""

import os
import pathlib

import jax
import pytest

# Compilation is most of the time; the launcher's tests, in processes of their
# own, compile as users do.
jax.config.update('jax_disable_most_optimizations', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture(scope='session')
def census_dir():
  """Folder with real rows; tests that need it are skipped without."""
  folder = os.environ.get('LPLMTL_CENSUS_DIR')
  if not folder:
    pytest.skip('set LPLMTL_CENSUS_DIR to a folder with Census-Income files')
  return pathlib.Path(folder)
