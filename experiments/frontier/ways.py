"""The roads, each a function: from what networks must fit to those that do."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import optax

from experiments.frontier import courses, targets
from experiments.frontier.courses import Change, Course
from experiments.frontier.targets import Target
from lplmtl import inspection
from lplmtl.compression import (
  disparse,
  low_rank,
  magnitude,
  neurons,
  pruning,
  sparsity,
  top_level,
)
from lplmtl.types import PyTree

_ROUND = 0.2  # of the units go at once, see lplmtl/compression/pruning.md
_ROUND_EPOCHS = 1
# Gradual pruning ends after this share of the steps, in so many parts; the
# zeros stay for the rest.
_GRADUAL, _PRUNINGS = 0.6, 30
_MOST_ZEROS = 0.99


class Ready(NamedTuple):
  """Networks that fit, still to be trained with rounding.

  Attributes:
    models: of each seed.
    seeds: their parameters; None if they are drawn.
    change: of the optimiser, if any.
    is_sparse: whether zeros are left out of what is stored.
  """

  models: list[Any]
  seeds: list[PyTree] | None = None
  change: Change | None = None
  is_sparse: bool = False


def drawn(architecture: str, target: Target) -> Ready:
  """Draws an architecture as wide as fits."""
  config = targets.fitting(architecture, target)
  return Ready([target.course.model(config)] * config.num_seeds)


def to_sple(target: Target) -> Ready:
  """Trains the PLE whose SPLE fits, and removes the top's specific experts."""
  course, config = target.course, targets.fitting('sple', target)
  ple, seeds = course.train_ple(
    dataclasses.replace(config, architecture='ple'), courses.RATE
  )
  features = course.calibration.features
  made = [top_level.to_sple(ple, params, features=features) for params in seeds]
  return Ready([model for model, _ in made], [params for _, params in made])


def by_gates(target: Target) -> Ready:
  """Keeps as many experts as fit, those that the gates weigh most."""
  config = target.course.config
  model, seeds = target.course.trained
  features = target.course.calibration.features
  usage = jax.jit(lambda params: inspection.usage(model, params, features))
  used = [jax.device_get(usage(params)) for params in seeds]

  def made(count: int) -> list[tuple[Any, PyTree]]:
    return [
      pruning.by_gate_use(model, params, use, count)
      for params, use in zip(seeds, used, strict=True)
    ]

  levels = len(config.expert_widths)
  per_level = len(target.course.tasks) * config.num_specific + config.num_shared
  count = targets.largest(
    lambda count: max(target.num_bytes(*pair) for pair in made(count)),
    (levels, levels * per_level),
    target.budget,
  )
  models, pruned = zip(*made(count), strict=True)
  return Ready(list(models), list(pruned))


def by_neurons(target: Target) -> Ready:
  """Removes a fifth of the units again and again, until the rest fits."""
  course = target.course
  size = target.num_bytes(course.model(targets.sized(course.config, 1)))
  if size > target.budget:  # before anything is trained
    raise targets.too_small(target.budget, size)
  widths = targets.widths(course.config)
  rounds, total = 0, sum(widths)
  while total >= len(widths):
    model, seeds = _narrowed(course, rounds)
    size = target.num_bytes(model, seeds[0])
    if size <= target.budget:
      return Ready([model] * len(seeds), seeds)
    rounds += 1
    total -= max(1, round(_ROUND * total))
  raise targets.too_small(target.budget, size)


def by_magnitude(target: Target) -> Ready:
  """Sets more and more of the smallest weights to 0 while it trains."""
  model, seeds = target.course.trained
  share = _zeros(target)

  def change(
    optimizer: optax.GradientTransformation, num_steps: int
  ) -> optax.GradientTransformation:
    end = round(_GRADUAL * num_steps)
    every = max(1, end // _PRUNINGS)
    return magnitude.gradual(optimizer, share, begin=0, end=end, every=every)

  return Ready([model] * len(seeds), seeds, change, is_sparse=True)


def by_disparse(target: Target) -> Ready:
  """Sets the weights to 0 that no task needs."""
  model, seeds = target.course.trained
  share = _zeros(target)
  pruned = [
    disparse.prune(
      model, params, target.course.calibration, share, criterion='taylor'
    )
    for params in seeds
  ]
  return Ready(
    [model] * len(seeds),
    pruned,
    lambda optimizer, _: magnitude.keep_zeros(optimizer),
    is_sparse=True,
  )


def low_ranks(target: Target) -> Ready:
  """Splits all matrices but embeddings, at the largest rank that fits."""
  model, seeds = target.course.trained

  def ranks(rank: int) -> low_rank.Ranks:
    try:
      return low_rank.ranks(
        seeds[0], rank, chosen=lambda name: not name.endswith('embedding')
      )
    except ValueError:  # makes nothing smaller
      return ()

  rank = targets.largest(
    lambda rank: target.num_bytes(
      *low_rank.factorise(model, seeds[0], ranks(rank))
    ),
    (1, max(targets.widths(target.course.config))),
    target.budget,
  )
  made = [low_rank.factorise(model, params, ranks(rank)) for params in seeds]
  return Ready([small for small, _ in made], [params for _, params in made])


@functools.cache
def _narrowed(course: Course, rounds: int) -> tuple[Any, list[PyTree]]:
  """Returns the trained PLE after rounds of removing units and training."""
  if not rounds:
    return course.trained
  model, seeds = neurons.prune_seeds(
    *_narrowed(course, rounds - 1), course.calibration, _ROUND, criterion='norm'
  )
  models = [model] * len(seeds)
  return model, courses.train(course, models, seeds, _ROUND_EPOCHS)


def _zeros(target: Target) -> float:
  """Returns the share of zeros with which matrices and their masks fit."""
  model, (first, *_) = target.course.trained
  matrices = sparsity.matrices(first)
  nothing = jax.tree.map(lambda x: x * 0, first)
  parts = target.parts(model, first)
  least = sum(courses.sparse(parts, nothing, target.scheme).values())
  least += len(matrices)  # the last byte of each may be filled in part
  total = sum(x.size for x in matrices.values())
  share = 1 - (target.budget - least) * 8 / target.scheme.bits / total
  if share > _MOST_ZEROS:
    raise targets.too_small(target.budget, least)
  return max(share, 1 / total)
