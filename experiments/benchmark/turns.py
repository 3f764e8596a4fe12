"""Contestants: persistent processes that take turns."""

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any, NamedTuple

from experiments.benchmark.plan import Plan
from experiments.benchmark.protocol import Config
from experiments.launcher import display
from experiments.launcher.display import Console
from experiments.launcher.errors import InputError

# Names of processes, as `python -m lplmtl` takes them: from any folder.
OURS = 'benchmark.worker'
TWIN = 'benchmark.twin'
# Calls of each kind in one turn: about a second of work.
CALLS = {'train': 1, 'score': 1, 'latency': 2000, 'square': 3, 'products': 2}


class Contestant(NamedTuple):
  """What to measure.

  Attributes:
    name: in tables.
    module: the program, OURS or TWIN.
    config: its configuration.
  """

  name: str
  module: str
  config: Config

  @property
  def is_ours(self) -> bool:
    """Whether it is the library rather than the twin."""
    return self.module == OURS

  def command(self) -> list[str]:
    """Returns the command that starts the process."""
    return [
      sys.executable,
      '-m',
      'lplmtl',
      self.module,
      json.dumps(self.config),
    ]

  def environment(self) -> dict[str, str]:
    """Returns the environment variables of the process."""
    variables = dict(os.environ)
    if self.config['threads'] == 1:
      single = '--xla_cpu_multi_thread_eigen=false'
      variables['XLA_FLAGS'] = f'{variables.get("XLA_FLAGS", "")} {single}'
    return variables


class Process:
  """A running contestant that answers requests."""

  def __init__(self, contestant: Contestant):
    self.contestant = contestant
    self._process = subprocess.Popen(
      contestant.command(),
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=contestant.environment(),
    )

  def facts(self) -> Config:
    """Waits until the model is ready; returns facts about it."""
    return self._answer()

  def rate(self, what: str) -> float:
    """Returns the units per second of one turn."""
    assert self._process.stdin is not None
    # A process that has ended is reported when its answer is missing.
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write(f'{what} {CALLS[what]}\n')
      self._process.stdin.flush()
    units, seconds = self._answer()
    return units / seconds

  def close(self) -> None:
    """Lets the process end, and waits until it has."""
    assert self._process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already
      self._process.stdin.close()
    self._process.wait()

  def _answer(self) -> Any:
    assert self._process.stdout is not None
    line = self._process.stdout.readline()
    if not line:
      raise InputError(
        f'{self.contestant.name} stopped: see what it printed above'
      )
    return json.loads(line)


def contestants(plan: Plan, config: Config) -> list[Contestant]:
  """Returns all contestants, ours first.

  Args:
    plan: of the benchmark.
    config: what they have in common.
  """
  entrants = []
  for dtype in plan.precisions:
    for balancer in plan.balancers:
      name = f'lplmtl {dtype}'
      if len(plan.balancers) > 1:
        name += f' {balancer}'
      settings = {'dtype': dtype, 'balancer': balancer}
      entrants.append(Contestant(name, OURS, {**config, **settings}))
  if plan.rival == 'pytorch':
    entrants += [
      Contestant(f'torch {dtype}', TWIN, {**config, 'dtype': dtype})
      for dtype in ('float32', 'bfloat16')
    ]
  return entrants


def rates(plan: Plan, config: Config, console: Console) -> Config:
  """Measures the rates of all contestants, in turns.

  Returns:
    `{'facts': ..., 'rates': {contestant: {what: [turns]}}}`. The products
    of a model's layers are timed only for ours, and only on one core.
  """
  facts: Config = {}
  values: dict[str, dict[str, list[float]]] = {}
  entrants = contestants(plan, config)
  measures = set(plan.measures)
  if 'products' in measures:
    measures.add('square')  # the peak rate
  timed = [what for what in CALLS if what in measures]
  running: list[Process] = []
  try:
    with display.steps(console, len(entrants) + plan.alternations) as done:
      for entrant in entrants:  # one at a time: they share the cores
        running.append(Process(entrant))
        facts |= running[-1].facts()
        values[entrant.name] = {what: [] for what in timed}
        done(f'{entrant.name} is ready')
      for turn in range(plan.alternations):
        for process in running[:: 1 if turn % 2 == 0 else -1]:
          for what in timed:
            if what != 'products' or _has_products(process.contestant):
              values[process.contestant.name][what].append(process.rate(what))
        done(f'turn {turn + 1} of {plan.alternations}')
  finally:
    for process in running:
      process.close()
  return {'facts': facts, 'rates': values}


def processes(plan: Plan, config: Config, console: Console) -> Config:
  """Times whole processes, from start to exit.

  Returns:
    `{'processes': {contestant: {part: [turns]}}}`, in seconds.
  """
  values: dict[str, dict[str, list[float]]] = {}
  with display.steps(console, plan.alternations) as done:
    for turn in range(plan.alternations):
      for job in _jobs(plan, config, turn):
        spent = values.setdefault(job.name, {})
        for part, seconds in _whole(job).items():
          spent.setdefault(part, []).append(seconds)
      done(f'turn {turn + 1} of {plan.alternations}')
  return {'processes': values}


def _has_products(contestant: Contestant) -> bool:
  return contestant.is_ours and contestant.config['threads'] == 1


def _jobs(plan: Plan, config: Config, turn: int) -> list[Contestant]:
  """Returns contestants; ours twice, with a cold and a warm cache."""
  jobs = []
  for one in contestants(plan, config):
    cache = os.path.join(config['scratch'], f'{one.name}-{turn}')
    one = one._replace(config={**one.config, 'cache': cache})
    if one.is_ours:
      jobs.append(one._replace(name=f'{one.name}, cold'))
      jobs.append(one._replace(name=f'{one.name}, warm'))
    else:
      jobs.append(one)
  if turn % 2 and plan.rival != 'none':  # the rival's two go first
    jobs = jobs[-2:] + jobs[:-2]
  return jobs


def _whole(job: Contestant) -> dict[str, float]:
  start = time.perf_counter()
  done = subprocess.run(
    job.command(),
    stdout=subprocess.PIPE,
    text=True,
    env=job.environment(),
    check=False,
  )
  total = time.perf_counter() - start
  if done.returncode:
    raise InputError(f'{job.name} stopped: see what it printed above')
  return {**json.loads(done.stdout), 'total': total}
