"""The commands outside a checkout: `lplmtl census` and the like."""

import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from lplmtl import __main__ as commands

ROOT = pathlib.Path(__file__).parent.parent


def _packages(folder):
  inits = (ROOT / folder).rglob('__init__.py')
  return {'.'.join(p.parent.relative_to(ROOT).parts) for p in inits}


def test_the_list_of_packages_is_complete():
  config = tomllib.loads((ROOT / 'pyproject.toml').read_text())
  installed = {f'lplmtl.{name}' for name in _packages('experiments')}
  listed = config['tool']['setuptools']['packages']
  assert len(listed) == len(set(listed))
  assert set(listed) == _packages('lplmtl') | installed


def test_usage_names_every_command():
  folder = commands._folder()
  text = commands._usage(commands._commands(folder))
  for path in (ROOT / 'experiments').glob('*.py'):
    if path.stem not in ('__init__', 'options'):
      assert f'\n  {path.stem} ' in text
      first = path.read_text().partition('"""')[2].partition('\n')[0]
      assert first in text


def test_shipped_flag_files_are_found_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  folder = ROOT / 'experiments' / 'flags'
  find = commands._with_shipped_flag_files
  shipped = [f'--flagfile={folder / "quickstart.flags"}']
  assert find(['--flagfile=quickstart.flags'], folder) == shipped
  path = '--flagfile=experiments/flags/quickstart.flags'
  assert find([path], folder) == shipped
  (tmp_path / 'quickstart.flags').write_text('--seed=1\n')
  own = ['--flagfile=quickstart.flags', '--seed=2']
  assert find(own, folder) == own


def _run(site, *arguments):
  return subprocess.run(
    [sys.executable, '-m', 'lplmtl', *arguments],
    cwd=site.parent,
    env={**os.environ, 'PYTHONPATH': str(site)},
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_a_wheel_runs_the_commands_in_any_folder(tmp_path):
  source = tmp_path / 'source'  # a build leaves files behind
  for folder in ('lplmtl', 'experiments'):
    shutil.copytree(ROOT / folder, source / folder)
  for name in ('pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  build = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '.']
  made = subprocess.run(
    [*build, '-w', tmp_path], cwd=source, capture_output=True, text=True
  )
  if 'No matching distribution' in made.stderr:
    pytest.skip('building needs setuptools, which pip cannot download here')
  assert made.returncode == 0, made.stderr
  (wheel,) = tmp_path.glob('*.whl')
  site = tmp_path / 'site'
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(site)
  assert {path.name.partition('-')[0] for path in site.iterdir()} == {'lplmtl'}
  assert (site / 'lplmtl/export/web/page.html').is_file()

  unknown = _run(site, 'cencus')
  assert unknown.returncode == 1
  assert unknown.stderr.startswith("error: unknown command 'cencus'")
  assert unknown.stderr.count('\n') == 1

  helped = _run(site, 'tabular', '--help')
  assert helped.returncode == 0, helped.stderr
  assert '--targets' in helped.stdout and '--dataset' not in helped.stdout
  assert 'tabular --data=new.csv --model=runs/customers \\\n' in helped.stdout
  assert 'lplmtl tabular --data' in _run(site, 'predict').stderr
