"""The plan of a benchmark: models, contestants, measures; from the flags."""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from absl import flags

from experiments.benchmark import out
from experiments.benchmark.protocol import Config
from experiments.launcher import build, options, parsing
from experiments.launcher.errors import InputError
from lplmtl.training import parallel

MEASURES = ('train', 'score', 'latency', 'products')
PRECISIONS = ('float32', 'bfloat16')
TWIN_ARCHITECTURES = ('mmoe', 'ple', 'shared_bottom')
SIZES = (
  'expert_width', 'tower_width', 'bottom_width', 'num_experts', 'num_specific',
  'num_shared', 'embed_dim',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is measured.

  Attributes:
    data: names the rows; see `launcher.options`.
    architectures: file names of lplmtl/architectures, each measured with every
      batch size.
    batch_sizes: rows per training step.
    precisions: ours; each, with each balancer, is a contestant.
    balancers: ours.
    rival: `pytorch` or `none`.
    measures: some of MEASURES.
    alternations: turns of each contestant.
    epochs: of whole processes, which are timed instead of rates; 0 for rates.
    num_tasks: T.
    machine: `threads`, `num_seeds` and `devices` of each contestant.
    sizes: of the models, by the names in SIZES.
    out: JSON file for the figures, or None.
  """

  data: options.Config
  architectures: tuple[str, ...]
  batch_sizes: tuple[int, ...]
  precisions: tuple[str, ...]
  balancers: tuple[str, ...]
  rival: str
  measures: tuple[str, ...]
  alternations: int
  epochs: int
  num_tasks: int
  machine: Mapping[str, int]
  sizes: Mapping[str, int]
  out: pathlib.Path | None = None

  def __post_init__(self) -> None:
    threads, cores = self.machine['threads'], parallel.num_cores()
    if threads > cores:
      raise InputError(
        f'--threads={threads} is more than the {cores} cores of this machine'
      )
    if self.out:
      out.check(self.out)
    known = build.architecture_names()
    if self.rival == 'pytorch':
      _check_pytorch()
      known = TWIN_ARCHITECTURES
    _check_names('architectures', self.architectures, known)
    _check_names('precisions', self.precisions, PRECISIONS)
    _check_names('balancers', self.balancers, build.balancer_names())
    _check_names('measures', self.measures, MEASURES)
    if 'products' in self.measures and 'train' not in self.measures:
      raise InputError(
        'products are measured against training: add train to --measures'
      )

  @property
  def config(self) -> Config:
    """What all contestants have in common, as JSON data."""
    return {**self.machine, 'epochs': self.epochs, **self.sizes}


def from_flags(values: flags.FlagValues) -> Plan:
  """Returns the Plan that parsed flags ask for."""
  if values.epochs and values['measures'].present:
    raise InputError(
      '--epochs times whole processes, --measures parts of them: choose one'
    )
  return Plan(
    data=options.Config(
      dataset=values.dataset,
      data_dir=values.data_dir,
      num_rows=values.num_rows,
      tasks=('income', 'marital'),
    ),
    architectures=tuple(values.architectures),
    batch_sizes=tuple(
      parsing.parse_counts('--batch_sizes', values.batch_sizes)
    ),
    precisions=tuple(values.precisions),
    balancers=tuple(values.balancers),
    rival=values.rival,
    measures=tuple(values.measures),
    alternations=values.alternations,
    epochs=values.epochs,
    num_tasks=values.num_tasks,
    machine=_picked(values, ('threads', 'num_seeds', 'devices')),
    sizes=_picked(values, SIZES),
    out=parsing.path('--out', values.out) if values.out else None,
  )


def _picked(values: flags.FlagValues, names: Collection[str]) -> dict[str, Any]:
  return {name: getattr(values, name) for name in names}


def _check_names(
  flag: str, names: Collection[str], known: Collection[str]
) -> None:
  if not names or set(names) - set(known):
    raise InputError(
      f'--{flag} must be among {", ".join(known)}; found '
      f'{", ".join(names) or "none"}'
    )


def _check_pytorch() -> None:
  if importlib.util.find_spec('torch') is None:
    raise InputError(
      "--rival=pytorch needs PyTorch: pip install 'lplmtl[bench]' (a CPU build "
      'is enough)'
    )
