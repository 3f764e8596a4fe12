"""Contestants of throughput.py: persistent processes that take turns."""

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any

from experiments.launcher.errors import InputError

CALLS = {'train': 1, 'score': 1, 'latency': 2000, 'square': 3, 'own': 2}
OURS = 'experiments.benchmark.worker'
TWIN = 'experiments.benchmark.twin'
Config = dict[str, Any]


def contestants(config: Config, options: Any) -> dict[str, tuple[str, Config]]:
  """`{name: (module, configuration)}`, ours first."""
  found = {}
  for dtype in options.precisions:
    for balancer in options.balancers:
      name = f'lplmtl {dtype}'
      if len(options.balancers) > 1:
        name += f' {balancer}'
      found[name] = (OURS, {**config, 'dtype': dtype, 'balancer': balancer})
  if options.rival == 'pytorch':
    for dtype in ('float32', 'bfloat16'):
      found[f'torch {dtype}'] = (TWIN, {**config, 'dtype': dtype})
  return found


def _command(module: str, config: Config) -> tuple[list[str], dict[str, str]]:
  environment = dict(os.environ)
  if config['threads'] == 1:
    known = environment.get('XLA_FLAGS', '')
    single = '--xla_cpu_multi_thread_eigen=false'
    environment['XLA_FLAGS'] = f'{known} {single}'
  return [sys.executable, '-m', module, json.dumps(config)], environment


class Contestant:
  """A worker process and what it answers."""

  def __init__(self, name: str, module: str, config: Config):
    self.name, self.module = name, module
    command, environment = _command(module, config)
    self.process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=environment,
    )

  def facts(self) -> Config:
    """Those of the model, once it is ready."""
    return self._answer()

  def ask(self, what: str) -> float:
    """Units a second."""
    assert self.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # what it said is not there
      self.process.stdin.write(f'{what} {CALLS[what]}\n')
      self.process.stdin.flush()
    units, seconds = self._answer()
    return units / seconds

  def _answer(self) -> Any:
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    if not line:
      raise InputError(f'{self.name} stopped: see what it printed above')
    return json.loads(line)

  def close(self) -> None:
    """Lets the process end."""
    assert self.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already
      self.process.stdin.close()
    self.process.wait()


def rates(config: Config, options: Any, console: Any) -> Config:
  """`{'facts': ..., 'rates': {contestant: {what: [turns]}}}`.

  A model's own products are timed for ours alone, and on one core.
  """
  from experiments.launcher import display

  found: Config = {'facts': {}, 'rates': {}}
  chosen = contestants(config, options)
  started: list[Contestant] = []
  measures = set(options.measures)
  if 'products' in measures:
    measures |= {'square', 'own'}
  calls = [what for what in CALLS if what in measures]
  try:
    with display.steps(console, len(chosen) + options.alternations) as done:
      for name, own in chosen.items():  # one at a time: they share the cores
        started.append(Contestant(name, *own))
        found['facts'] |= started[-1].facts()
        found['rates'][name] = {what: [] for what in calls}
        done(f'{name} is ready')
      for turn in range(options.alternations):
        for one in started[:: 1 if turn % 2 == 0 else -1]:
          for what in calls:
            if what != 'own' or (one.module == OURS and config['threads'] == 1):
              found['rates'][one.name][what].append(one.ask(what))
        done(f'turn {turn + 1} of {options.alternations}')
  finally:
    for one in started:
      one.close()
  return found


def processes(config: Config, options: Any, console: Any) -> Config:
  """`{'processes': {contestant: {part: [turns]}}}`, seconds."""
  from experiments.launcher import display

  found: Config = {}
  with display.steps(console, options.alternations) as done:
    for turn in range(options.alternations):
      jobs = []
      for name, (module, own) in contestants(config, options).items():
        cache = os.path.join(config['scratch'], f'{name}-{turn}')
        own = {**own, 'cache': cache}
        if module == OURS:
          jobs.append((f'{name}, cold', module, own))
        jobs.append((f'{name}, warm' if module == OURS else name, module, own))
      if turn % 2:  # a warm start still comes after its cold one
        jobs = jobs[-2:] + jobs[:-2] if options.rival != 'none' else jobs
      for name, module, own in jobs:
        spent = found.setdefault(name, {})
        for part, seconds in _whole(name, module, own).items():
          spent.setdefault(part, []).append(seconds)
      done(f'turn {turn + 1} of {options.alternations}')
  return {'processes': found}


def _whole(name: str, module: str, config: Config) -> dict[str, float]:
  command, environment = _command(module, config)
  start = time.perf_counter()
  done = subprocess.run(
    command, stdout=subprocess.PIPE, text=True, env=environment, check=False
  )
  total = time.perf_counter() - start
  if done.returncode:
    raise InputError(f'{name} stopped: see what it printed above')
  return {**json.loads(done.stdout), 'total': total}
