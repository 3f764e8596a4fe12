"""The commands, from any folder: `lplmtl COMMAND`, `python -m lplmtl COMMAND`.

A checkout keeps them beside the library, in `experiments`; an installation in
`lplmtl/experiments`, so that no second top-level package is installed. Either
way their modules are called `experiments.<name>`.
"""

import ast
import importlib.util
import pathlib
import runpy
import signal
import sys
from collections.abc import Sequence

_HELP = ('-h', '-help', '--help')
_OLD = ('options',)  # old names of modules, which are not commands
# What users may look for, and the command that does it.
_MEANT = {
  'train': 'lplmtl tabular --data=customers.csv --targets=churn trains',
  'predict': 'lplmtl tabular --data=new.csv --model=runs/customers '
  '--predict_to=scores.csv predicts',
}


def main() -> None:
  """Runs the command that is named by the first argument."""
  # Until the command has imported its packages, Ctrl-C ends the process at
  # once and silently, as it does for `python -m experiments.<command>`.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  folder = _folder()
  if folder is None:
    sys.exit(
      'error: this installation of lplmtl holds no commands: reinstall it, or '
      'run them in a checkout, as python -m experiments.<command>'
    )
  name, *arguments = sys.argv[1:] or ['--help']
  known = _commands(folder)
  if name in _HELP:
    sys.stdout.write(_usage(known))
    return
  is_worker = name.startswith('benchmark.')  # the processes of throughput
  if name not in known and not is_worker:
    sys.exit(
      f'error: unknown command {name!r}: expected one of {", ".join(known)}; '
      f'{_MEANT.get(name, "lplmtl --help says what they do")}'
    )
  _import_package(folder, _caller())
  sys.argv[1:] = _with_shipped_flag_files(arguments, folder / 'flags')
  runpy.run_module(f'experiments.{name}', run_name='__main__', alter_sys=True)


def _caller() -> str:
  """Returns how the commands are called, for their --help."""
  is_script = pathlib.Path(sys.argv[0]).name != '__main__.py'
  return 'lplmtl ' if is_script else 'python -m lplmtl '


def _folder() -> pathlib.Path | None:
  """Returns the folder of the commands, or None."""
  here = pathlib.Path(__file__).resolve().parent
  for folder in (here / 'experiments', here.parent / 'experiments'):
    if (folder / 'census.py').is_file():
      return folder
  return None


def _commands(folder: pathlib.Path) -> dict[str, str]:
  """Returns `{command: the first line of its docstring}`."""
  return {
    path.stem: _first_line(path)
    for path in sorted(folder.glob('*.py'))
    if not path.stem.startswith('_') and path.stem not in _OLD
  }


def _first_line(path: pathlib.Path) -> str:
  text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''
  return text.partition('\n')[0]


def _usage(known: dict[str, str]) -> str:
  width = max(map(len, known))
  lines = [f'  {name:{width}}  {text}' for name, text in known.items()]
  return '\n'.join(
    ['usage: lplmtl COMMAND [--FLAG=VALUE ...]', '', *lines, '',
     'lplmtl COMMAND --help lists the flags of a command.', '']
  )  # fmt: skip


def _import_package(folder: pathlib.Path, caller: str) -> None:
  """Imports a folder as the package `experiments`, wherever it lies."""
  spec = importlib.util.spec_from_file_location(
    'experiments',
    folder / '__init__.py',
    submodule_search_locations=[str(folder)],
  )
  assert spec is not None and spec.loader is not None
  package = importlib.util.module_from_spec(spec)
  sys.modules['experiments'] = package
  package.CALLER = caller  # type: ignore[attr-defined]  # for --help
  spec.loader.exec_module(package)


def _with_shipped_flag_files(
  arguments: Sequence[str], folder: pathlib.Path
) -> list[str]:
  """Replaces the name of a flag file that is not here by one that is shipped.

  `--flagfile=quickstart.flags` works in any folder, and so does the path that
  the file has in a checkout.
  """
  replaced = []
  for argument in arguments:
    flag, _, path = argument.partition('=')
    shipped = folder / pathlib.PurePath(path).name
    is_ours = flag.lstrip('-') == 'flagfile' and shipped.is_file()
    if is_ours and not pathlib.Path(path).exists():
      argument = f'{flag}={shipped}'
    replaced.append(argument)
  return replaced


if __name__ == '__main__':
  main()
