"""The protocol between the command and a contestant; no JAX, no PyTorch.

A contestant is a process whose only argument is its configuration, as JSON.
With `epochs` it trains once and prints the seconds of each part (see `report`).
Otherwise it reads requests `<what> <calls>` from standard input, one per line,
and answers each with a line of JSON (see `serve`).
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

Config = dict[str, Any]
# A matrix product large enough to run at the machine's peak rate: 17 GFLOP.
SQUARE = (2048, 2048, 2048)
WRONG_LABELS = 0.1  # in tasks that are copies, so that they differ


class Rows(NamedTuple):
  """Encoded training rows.

  Attributes:
    features: `categories` `[N, C]` and `numeric` `[N, M]`.
    labels: `[N, T]`, 0 or 1.
    num_categories: sizes of the C vocabularies.
  """

  features: dict[str, np.ndarray]
  labels: np.ndarray
  num_categories: list[int]


class Engine(Protocol):
  """A model that can be timed; each method returns the units of work done."""

  def facts(self) -> Mapping[str, Any]:
    """Returns JSON data about the model, and is not timed."""

  def train(self, calls: int) -> int:
    """Trains `calls` epochs; returns rows."""

  def score(self, calls: int) -> int:
    """Scores the whole table `calls` times; returns rows."""

  def latency(self, calls: int) -> int:
    """Scores single rows; returns rows."""

  def square(self, calls: int) -> int:
    """Multiplies SQUARE matrices; returns floating-point operations."""


def write_rows(path: str, rows: Rows, num_tasks: int) -> None:
  """Writes rows for all contestants.

  Args:
    path: an .npz file.
    rows: the training rows, with two tasks.
    num_tasks: T. Tasks from the third on are copies of these two, with wrong
      labels in a tenth of the rows.
  """
  labels = rows.labels[:, np.arange(num_tasks) % 2]
  drawn = np.random.default_rng(0).uniform(size=labels.shape)
  labels[:, 2:] ^= (drawn < WRONG_LABELS)[:, 2:]
  features: Any = rows.features
  np.savez(path, labels=labels, num_categories=rows.num_categories, **features)


def read_rows(path: str) -> Rows:
  """Reads what `write_rows` wrote."""
  with np.load(path, allow_pickle=False) as arrays:
    features = {name: arrays[name] for name in ('categories', 'numeric')}
    return Rows(features, arrays['labels'], arrays['num_categories'].tolist())


def pin(threads: int) -> None:
  """Pins this process to the last `threads` of its cores.

  Call it before the first computation: existing threads are not moved. The
  first core is where other processes start.
  """
  if hasattr(os, 'sched_setaffinity'):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[-threads:]))


def serve(engine: Engine) -> None:
  """Warms up an engine, prints its facts, and answers requests until EOF.

  An answer is `[units, seconds]`; what compiles by the first call is not timed.
  """
  are_warm = {'train', 'score', 'latency'}
  for what in sorted(are_warm):
    getattr(engine, what)(1)
  print(json.dumps(engine.facts()), flush=True)
  for line in sys.stdin:
    what, calls = line.split()
    if what not in are_warm:
      getattr(engine, what)(1)
      are_warm.add(what)
    start = time.perf_counter()
    units = getattr(engine, what)(int(calls))
    print(json.dumps([units, time.perf_counter() - start]), flush=True)


def report(seconds: Mapping[str, float]) -> None:
  """Prints the seconds of each part of a whole process."""
  print(json.dumps(seconds), flush=True)
