"""The examples in docstrings, which show the twenty most used names at least."""

import doctest
import importlib
import pkgutil

import pytest

import lplmtl

MODULES = [
  importlib.import_module(found.name)
  for found in pkgutil.walk_packages(lplmtl.__path__, 'lplmtl.')
]
TESTS = [
  test
  for module in MODULES
  for test in doctest.DocTestFinder().find(module)
  if test.examples
]


def test_there_are_examples():
  assert len({test.name for test in TESTS}) >= 20


@pytest.mark.parametrize('test', [pytest.param(t, id=t.name) for t in TESTS])
def test_example(test, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  result = doctest.DocTestRunner().run(test, clear_globs=False)
  assert result.attempted and not result.failed
