"""What the README says can be done."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
PYTHON = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
SHELL = '\n'.join(re.findall(r'```sh\n(.*?)```', README, re.DOTALL))


@pytest.mark.parametrize('number', range(len(PYTHON)))
def test_snippets_run(number, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  exec(compile(PYTHON[number], f'README snippet {number}', 'exec'), {})


def test_there_are_snippets():
  assert PYTHON
  longest = max(len(text.strip().splitlines()) for text in PYTHON)
  assert longest <= 15


def test_commands_name_files_that_exist():
  named = re.findall(r'--flagfile=(\S+)', SHELL)
  assert named
  for path in named:
    assert (ROOT / path).is_file(), path
  for module in re.findall(r'python -m (experiments\.\w+)', SHELL):
    assert (ROOT / module.replace('.', '/')).with_suffix('.py').is_file()


def test_tree_is_true():
  """Every file of "What is inside" exists, and every source file is named."""
  block = re.search(r'## What is inside.*?```text\n(.*?)```', README, re.DOTALL)
  named, folder = set(), pathlib.PurePosixPath()
  for line in block[1].splitlines():
    name = line.split()[0]
    if not line.startswith(' '):
      folder = pathlib.PurePosixPath(name)
      continue
    named.add(str(folder / name))
  for name in named:
    assert (ROOT / name).exists(), name
  for package in ('lplmtl', 'experiments'):
    for path in (ROOT / package).rglob('*.py'):
      relative = path.relative_to(ROOT)
      in_folder = any(f'{parent}' in named for parent in relative.parents)
      if path.name != '__init__.py':
        assert str(relative) in named or in_folder, relative


def test_public_names_of_the_library_are_used_or_documented():
  tree = ast.parse((ROOT / 'lplmtl' / '__init__.py').read_text())
  names = [
    a.asname
    for n in tree.body
    if isinstance(n, ast.ImportFrom)
    for a in n.names
  ]
  assert len(names) == len(set(names))
  for name in names:
    assert f'`{name}`' in README, name
