"""Gradient-boosted trees in as few bytes as we know how.

    found = trees.candidates(data, (512, 1024, 2048), seed=0)
    found[1024].num_bytes, found[1024].test['income']

Each task has LightGBM models of small trees over a limited pool of splits (see
`growing`). One sequence of trees per setting is grown once; its beginnings are
refitted with rounded leaves (`refitting`) and packed (`tree_bytes`). Validation
rows decide on settings, on the number of trees, on the bits of a leaf, and on
how tasks divide a budget between them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.datasets.base import Data
from experiments.frontier import candidates as choosing
from experiments.frontier import drafts, inputs, sequences, sharing, tree_bytes
from experiments.frontier.candidates import Candidate, Offer
from experiments.frontier.drafts import Draft
from experiments.frontier.inputs import Inputs
from experiments.frontier.sequences import RATES, Grower, TreeSequence
from lplmtl.types import Batch

_POOLS = (16, 32, 64, 128, 256, 512)
_BITS = (5, 4, 6)  # of a leaf; the first for all, the others for the best
# How strongly refitted leaves are held, see `refitting`: more for more trees.
_RIDGES = (10, 100, 1000)
_ROUNDS, _SPLITS = 600, 9000  # of a sequence, at most
_STEP = 1.4  # from one number of rounds to the next
# Beginnings further below the best of their size are not refitted, as a share
# of what the best ones differ by: refitting gains .0025 of AUC where they range
# over .04.
_SLACK = 0.05


class Setting(NamedTuple):
  """How the trees of a task are grown.

  Attributes:
    pool: the number of splits to choose from.
    leaves: of each tree.
    is_slow: see `sequences.grow`.
    rounds: trees for each output; 0 to try many numbers.
    bits: of a leaf; 0 to try several.
    ridge: how strongly its leaves are held; 0 to try several.
  """

  pool: int
  leaves: int
  is_slow: bool = False
  rounds: int = 0
  bits: int = 0
  ridge: int = 0


class _Model(NamedTuple):
  """The trees of one task, `[K]` drafts."""

  setting: Setting
  drafts: tuple[Draft, ...]


SETTINGS = (
  *(
    Setting(pool, leaves)
    for pool in _POOLS
    for leaves in RATES
    if 4 * leaves <= pool <= 32 * leaves
  ),
  # Worth their many trees from 4 kB on: few of them, as they take a minute.
  Setting(512, 8, is_slow=True),
  Setting(512, 16, is_slow=True),
  Setting(256, 32, is_slow=True),
)


def candidates(
  data: Data,
  budgets: Sequence[int],
  *,
  teacher: Mapping[str, np.ndarray] | None = None,
  seed: int = 0,
  settings: Mapping[str, Sequence[Setting]] | None = None,
) -> dict[int, Candidate]:
  """Returns the best trees that fit each budget.

  Args:
    data: rows encoded with bins; 128 of them are enough.
    budgets: in bytes, for all tasks together.
    teacher: `{task: [N, K]}` outputs for the training rows, which the trees
      learn in place of the labels; None to learn the labels.
    seed: of the random choice of rows.
    settings: `{task: those to try}`; None tries all. What `tried` returns for
      another seed saves most of the time.

  Returns:
    `{budget: Candidate}` of the budgets that are large enough.

  Raises:
    NotMadeError: no budget is large enough, or there is nothing to learn.
    ValueError: see `inputs`.
    InputError: LightGBM is missing.
  """
  rows = inputs.encode(data)
  growers, fronts = {}, {}
  for task in data.tasks:
    todo = inputs.targets(data, task, teacher)
    given = sequences.grower(rows, todo, seed)
    asked = SETTINGS if settings is None else settings[task.name]
    points = _points(given, asked, max(budgets), data.validation)
    growers[task.name] = given
    fronts[task.name] = choosing.front(points)

  def pack(
    choice: Mapping[str, Offer],
  ) -> tuple[sharing.Shared, tree_bytes.Packed]:
    return _pack({name: (growers[name], p.model) for name, p in choice.items()})

  chosen = choosing.split_all(
    fronts, budgets, lambda choice: pack(choice)[1].num_bytes
  )
  return {
    budget: _candidate(rows, choice, *pack(choice))
    for budget, choice in chosen.items()
  }


def tried(found: Iterable[Candidate]) -> dict[str, list[Setting]]:
  """Returns what was chosen for each task, and a little less of it.

  With another seed, as many trees may take a few bytes more.
  """
  chosen: dict[str, dict[Setting, None]] = {}
  for candidate in found:
    for task, made in candidate.settings.items():
      setting = Setting(*(made[name] for name in Setting._fields))
      less = setting._replace(rounds=max(round(0.9 * setting.rounds), 1))
      chosen.setdefault(task, {}).update({setting: None, less: None})
  return {task: list(settings) for task, settings in chosen.items()}


def _points(
  given: Grower, settings: Sequence[Setting], most: int, rows: Batch
) -> list[Offer]:
  """Returns a task's models; only those that may be worth it are refitted."""
  measure = choosing.measure(given.todo.task, rows)
  rough: list[Offer] = []
  for kind in dict.fromkeys(s[:3] for s in settings):
    own = [s for s in settings if s[:3] == kind]
    limit = min(_ROUNDS, _SPLITS // (kind[1] - 1))
    trees = sequences.grow(given, *kind, max(s.rounds or limit for s in own))
    asked = _beginnings(own, len(trees.rows))
    for setting, scores in _staged(given, trees, asked):
      size = trees.num_bytes(given, setting.rounds, setting.bits)
      if size <= most or not rough:  # a budget may be too small for any
        rough.append(Offer(size, measure(scores), (trees, setting)))

  def refitted(trees: TreeSequence, setting: Setting) -> Offer:
    made = trees.refitted(setting.rounds, setting.bits, setting.ridge)
    model = _Model(setting, made)
    shared, packed = _pack({given.todo.task.name: (given, model)})
    scores = _scores(given.inputs, shared, packed, 'validation')
    return Offer(packed.num_bytes, measure(scores), model)

  best = choosing.front(rough)
  slack = _SLACK * (best[-1].quality - best[0].quality)
  found, sources = [], {}
  for size, quality, (trees, setting) in rough:
    least = max(p.quality for p in best if p.num_bytes <= size) - slack
    if setting.ridge:
      found.append(refitted(trees, setting))
    elif quality >= least:
      for ridge in _RIDGES:
        own = setting._replace(ridge=ridge)
        sources[own] = trees
        found.append(refitted(trees, own))
  # Other bits only for the best of these.
  settled = [p.model.setting for p in choosing.front(found)]
  return found + [
    refitted(sources[setting], setting._replace(bits=bits))
    for setting in settled
    if setting in sources
    for bits in _BITS[1:]
  ]


def _beginnings(settings: Sequence[Setting], most: int) -> list[Setting]:
  """Returns settings with rounds and bits, by rounds."""
  found: dict[Setting, None] = {}
  for setting in settings:
    if setting.rounds:
      rounds = [min(setting.rounds, most)]
    else:
      steps = range(math.ceil(math.log(max(most, 4) / 4, _STEP)))
      rounds = [*(round(4 * _STEP**i) for i in steps), most]
    for count in rounds:
      bits = setting.bits or _BITS[0]
      found[setting._replace(rounds=count, bits=bits)] = None
  return sorted(found, key=lambda setting: setting.rounds)


def _staged(
  given: Grower, trees: TreeSequence, settings: Sequence[Setting]
) -> Iterator[tuple[Setting, np.ndarray]]:
  """Yields `[N, K]` scores of validation rows, before leaves are refitted."""
  right = given.sides('validation', trees.pool)
  scores = np.zeros((right.shape[1], given.todo.means.shape[1]))
  done = 0
  for setting in settings:
    for row in trees.rows[done : setting.rounds]:
      for tree in row:
        scores[:, tree.output] += tree_bytes.leaf_of(
          tree.nodes, right, tree.values
        )
    done = setting.rounds
    yield setting, scores


def _pack(
  models: Mapping[str, tuple[Grower, _Model]],
) -> tuple[sharing.Shared, tree_bytes.Packed]:
  """Packs the models of several tasks."""
  (first, _), *_ = models.values()
  pairs = [
    (draft, given.ranks)
    for given, model in models.values()
    for draft in model.drafts
  ]
  return drafts.pack(first.inputs, pairs)


def _scores(
  rows: Inputs,
  shared: sharing.Shared,
  packed: tree_bytes.Packed,
  split: str,
) -> np.ndarray:
  """Returns `[N, forests]` scores, from the bytes."""
  return tree_bytes.score_ids(packed, sharing.recode(shared, rows.codes[split]))


def _candidate(
  rows: Inputs,
  choice: Mapping[str, Offer],
  shared: sharing.Shared,
  packed: tree_bytes.Packed,
) -> Candidate:
  ends = np.cumsum([len(point.model.drafts) for point in choice.values()])
  outputs = []
  for split in ('validation', 'test'):
    scores = _scores(rows, shared, packed, split)
    parts = np.split(scores, ends[:-1], axis=1)
    outputs.append(dict(zip(choice, parts, strict=True)))
  settings = {
    name: {
      **point.model.setting._asdict(),
      'columns': len({c for d in point.model.drafts for c, _ in d.splits}),
      'bytes_alone': point.num_bytes,
    }
    for name, point in choice.items()
  }
  return Candidate(packed.num_bytes, settings, *outputs)
