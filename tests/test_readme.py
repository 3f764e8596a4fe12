"""Whatever the READMEs say can be done: snippets, commands, links, the tree."""

import ast
import csv
import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import lplmtl
from lplmtl import architectures, balancing

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ('lplmtl', 'experiments', 'tests')
FILES = [
  path
  for path in (
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *(p for f in FOLDERS for p in sorted((ROOT / f).rglob('*.md'))),
  )
  if path.is_file()
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
README = TEXTS['README.md']
MAX_LINES = {'README.md': 280}  # of the others: 300


def _blocks(text, language):
  return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


SNIPPETS = [
  pytest.param(name, code, id=f'{name}-{number}')
  for name, text in TEXTS.items()
  for number, code in enumerate(_blocks(text, 'python'))
]


@pytest.mark.parametrize('name, code', SNIPPETS)
def test_snippets_run(name, code, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  exec(compile(code, name, 'exec'), {})


def test_the_readme_has_snippets_of_at_most_15_lines():
  snippets = _blocks(README, 'python')
  assert snippets
  assert max(len(code.strip().splitlines()) for code in snippets) <= 15


@pytest.mark.parametrize('name', TEXTS)
def test_snippets_that_need_a_file_are_python(name):
  for code in _blocks(TEXTS[name], 'py'):
    ast.parse(code)


@pytest.mark.parametrize('name', TEXTS)
def test_length(name):
  assert len(TEXTS[name].splitlines()) <= MAX_LINES.get(name, 300)


DIFFS = [code for text in TEXTS.values() for code in _blocks(text, 'diff')]


@pytest.mark.parametrize('sign', '-+')
@pytest.mark.parametrize('diff', DIFFS)
def test_both_sides_of_a_diff_run(diff, sign):
  lines = [
    line[1:] for line in diff.splitlines() if line[:1] in ('', ' ', sign)
  ]
  exec(compile('\n'.join(lines), 'diff', 'exec'), {})


def _commands(text):
  """The words of each command in the `sh` blocks, and of `!` lines."""
  lines = '\n'.join(_blocks(text, 'sh')).replace('\\\n', ' ').splitlines()
  lines += re.findall(
    r'^!(.*)$', '\n'.join(_blocks(text, 'text')), re.MULTILINE
  )
  for line in lines:
    for command in re.split(r'&&|;', line):
      words = shlex.split(command, comments=True)
      if words:
        yield words


MODULES = {
  words[2]
  for text in TEXTS.values()
  for words in _commands(text)
  if words[:2] == ['python', '-m'] and words[2].startswith('experiments.')
}
PARSE = """
import importlib, json, sys
from absl import flags
importlib.import_module(sys.argv[1])
for words in json.loads(sys.argv[2]):
  flags.FLAGS(['command', *words])
  flags.FLAGS.unparse_flags()
"""


@pytest.mark.parametrize('module', sorted(MODULES))
def test_commands_parse(module):
  """In a process of its own, as two commands may define the same flag."""
  lines = [
    # The value of a shell variable is not known: only its flag is parsed.
    [w for w in words[3:] if '$' not in w and w != '--help']
    for text in TEXTS.values()
    for words in _commands(text)
    if words[1:3] == ['-m', module]
  ]
  command = [sys.executable, '-c', PARSE, module, json.dumps(lines)]
  subprocess.run(command, cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize('name', TEXTS)
def test_files_of_commands_exist(name):
  for words in _commands(TEXTS[name]):
    for word in words:
      if re.fullmatch(r'[\w/.-]+\.(py|txt|sh)', word):
        assert (ROOT / word).is_file(), words


def test_the_readme_has_commands():
  assert 'experiments.census' in MODULES


def _anchors(text):
  titles = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
  kept = (re.sub(r'[^\w\- ]', '', title.lower()) for title in titles)
  return {title.replace(' ', '-') for title in kept}


@pytest.mark.parametrize('name', TEXTS)
def test_links_lead_somewhere(name):
  prose = re.sub(r'```.*?```', '', TEXTS[name], flags=re.DOTALL)
  for target in re.findall(r'\]\(([^)\s]+)\)', prose):
    if target.startswith(('http://', 'https://', 'mailto:')):
      continue
    path, _, anchor = target.partition('#')
    file = (ROOT / name).parent / path if path else ROOT / name
    assert file.exists(), target
    if anchor:
      assert anchor in _anchors(file.read_text()), target


def test_tree_is_true():
  """All files in "What is inside" exist; all public source files are named."""
  block = re.search(r'## What is inside.*?```text\n(.*?)```', README, re.DOTALL)
  named, folder = set(), pathlib.PurePosixPath()
  for line in block[1].splitlines():
    names = re.match(r'\s*([\w./]+(, [\w./]+)*)', line)[1].split(', ')
    if not line.startswith(' '):
      folder = pathlib.PurePosixPath(names[0])
      continue
    named |= {str(folder / name) for name in names}
  for name in named:
    assert (ROOT / name).exists(), name
  for package in ('lplmtl', 'experiments'):
    for path in (ROOT / package).rglob('*.py'):
      relative = path.relative_to(ROOT)
      in_folder = any(f'{parent}' in named for parent in relative.parents)
      if not path.name.startswith('_'):
        assert str(relative) in named or in_folder, relative


METHODS = {
  'architectures': architectures.ARCHITECTURES + architectures.CHAINS,
  'balancing': (
    *balancing.LOSS_WEIGHTINGS, *balancing.GRAMIAN_METHODS, *balancing.AGGREGATORS,
  ),
}  # fmt: skip


def test_there_are_as_many_as_the_readme_promises():
  assert 'More than fifteen architectures' in README
  assert len(METHODS['architectures']) > 15
  assert 'More than two dozen balancers' in README
  assert len(METHODS['balancing']) > 24


@pytest.mark.parametrize('room', METHODS)
def test_every_method_is_in_a_table(room):
  text = TEXTS[f'lplmtl/{room}/README.md']
  listed = re.findall(r'^\| `(\w+)` \|', text, re.MULTILINE)
  assert sorted(listed) == sorted(m.__name__ for m in METHODS[room])


def test_results_are_those_of_the_comparison():
  """Every row of the table, against the figures of the published comparison."""
  path = ROOT / 'experiments' / 'results' / 'compare_group1.csv'
  with path.open() as file:
    figures = {row['row']: row for row in csv.DictReader(file)}
  section = re.search(
    r'^## Results\n(.*?)^## ', README, re.DOTALL | re.MULTILINE
  )[1]
  table = re.findall(
    r'^\| ([^|]+) \| ([\d,]+) \| (.*) \|$', section, re.MULTILINE
  )
  names = [
    'ple', 'sple', 'mmoe', 'shared_bottom', 'single_task', 'trees',
  ]  # fmt: skip
  assert len(table) == len(names)
  for name, (_, parameters, cells) in zip(names, table, strict=True):
    row = figures[name]
    expected = [f'{int(row["parameters"]):,}']
    for task in ('income', 'marital'):
      mean, std = (float(row[f'{task}_auc_{x}']) for x in ('mean', 'std'))
      expected.append(f'{mean:.4f} ± {std:.4f}')
      if name == 'ple':
        expected.append('baseline')
        continue
      ends = ('estimate', 'low', 'high')
      change, low, high = (
        f'{1e4 * float(row[f"{task}_auc_difference_{end}"]):+.1f}'
        for end in ends
      )
      expected.append(f'{change} [{low}, {high}]')
    assert [parameters, *cells.split(' | ')] == expected


def test_public_names_of_the_library_are_documented():
  names = lplmtl.__all__
  assert len(names) == len(set(names))
  for name in names:
    assert any(f'`{name}`' in text for text in TEXTS.values()), name
