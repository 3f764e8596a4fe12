"""Lightweight multi-task learning in JAX/Flax.

    model = lplmtl.PLE((lplmtl.tasks.binary('click'), ...))
    result = lplmtl.fit(
        jax.random.key(0), model, optax.adam(1e-3),
        lplmtl.balancing.uncertainty(), lplmtl.Batch(features, labels))
    logits = lplmtl.predict(model, result.params, features)  # {'click': [B, 1]}

Tasks: `tasks` has the common kinds, `losses` and `metrics` the functions for
  your own `Task`.
Models: the architectures, from `SingleTask` to `SPLE`; their building blocks
  `MLP`, `Experts`, `TabularEncoder`, `ImageEncoder` and `CrossNetwork`;
  `tables` encodes raw columns.
Loss and gradient balancing: `balancing`.
Training: `fit`; for your own loop `make_train_step`, `make_eval_step`,
  `task_gradients` and `shared_leaves`.
Trained models: `predict` and `make_predictor`.

Further modules: `checkpoint` (saved models), `resume` (runs that survive
interruptions), `sparse` (optimisers of large tables), `statistics` (confidence
intervals), `inspection` (how gates use the experts), `compression` (smaller
models, and costs), `export` (models without JAX) and `data` (synthetic rows).

All of these are imported when first used: `import lplmtl.tables`, say, needs
NumPy only.

Letters used everywhere: B rows of a batch, T tasks, E experts, D input
features, H expert width, K outputs of a task, S seeds.
"""

import importlib as _importlib
import typing as _typing

from lplmtl import _moved

if _typing.TYPE_CHECKING:  # what __getattr__ below imports when it is used
  from lplmtl import architectures as architectures
  from lplmtl import balancing as balancing
  from lplmtl import blueprint as blueprint
  from lplmtl import checkpoint as checkpoint
  from lplmtl import columns as columns
  from lplmtl import compression as compression
  from lplmtl import data as data
  from lplmtl import dates as dates
  from lplmtl import export as export
  from lplmtl import hashing as hashing
  from lplmtl import inspection as inspection
  from lplmtl import layers as layers
  from lplmtl import loggers as loggers
  from lplmtl import losses as losses
  from lplmtl import metrics as metrics
  from lplmtl import numeric as numeric
  from lplmtl import ordinal as ordinal
  from lplmtl import prng as prng
  from lplmtl import resume as resume
  from lplmtl import sparse as sparse
  from lplmtl import statistics as statistics
  from lplmtl import storage as storage
  from lplmtl import tables as tables
  from lplmtl import tabular as tabular
  from lplmtl import tasks as tasks
  from lplmtl import training as training
  from lplmtl import types as types
  from lplmtl import vocabulary as vocabulary
  from lplmtl.architectures import AITM as AITM
  from lplmtl.architectures import CGC as CGC
  from lplmtl.architectures import ESMM as ESMM
  from lplmtl.architectures import MTAN as MTAN
  from lplmtl.architectures import PLE as PLE
  from lplmtl.architectures import SPLE as SPLE
  from lplmtl.architectures import STEM as STEM
  from lplmtl.architectures import AdaTT as AdaTT
  from lplmtl.architectures import CrossStitch as CrossStitch
  from lplmtl.architectures import DSelectK as DSelectK
  from lplmtl.architectures import MMoE as MMoE
  from lplmtl.architectures import OMoE as OMoE
  from lplmtl.architectures import SharedBottom as SharedBottom
  from lplmtl.architectures import SingleTask as SingleTask
  from lplmtl.architectures import SoftSharing as SoftSharing
  from lplmtl.architectures import StackedMMoE as StackedMMoE
  from lplmtl.architectures import TensorFactorization as TensorFactorization
  from lplmtl.layers.crosses import CrossNetwork as CrossNetwork
  from lplmtl.layers.encoder import TabularEncoder as TabularEncoder
  from lplmtl.layers.experts import MLP as MLP
  from lplmtl.layers.experts import Experts as Experts
  from lplmtl.layers.images import ImageEncoder as ImageEncoder
  from lplmtl.training.evaluation import make_eval_step as make_eval_step
  from lplmtl.training.evaluation import make_predictor as make_predictor
  from lplmtl.training.evaluation import predict as predict
  from lplmtl.training.fit import fit as fit
  from lplmtl.training.gradients import shared_leaves as shared_leaves
  from lplmtl.training.gradients import task_gradients as task_gradients
  from lplmtl.training.steps import TrainState as TrainState
  from lplmtl.training.steps import make_train_step as make_train_step
  from lplmtl.types import Aggregator as Aggregator
  from lplmtl.types import Balancer as Balancer
  from lplmtl.types import Batch as Batch
  from lplmtl.types import Task as Task

__version__ = '0.1.0'

_MODULES = (
  'architectures balancing blueprint checkpoint columns compression data '
  'dates export hashing inspection layers loggers losses metrics numeric '
  'ordinal prng resume sparse statistics storage tables tabular tasks training '
  'types vocabulary'
).split()
_NAMES = {
  'architectures': (
    'AITM CGC ESMM MTAN PLE SPLE STEM AdaTT CrossStitch DSelectK MMoE OMoE '
    'SharedBottom SingleTask SoftSharing StackedMMoE TensorFactorization'
  ),
  'layers.crosses': 'CrossNetwork',
  'layers.encoder': 'TabularEncoder',
  'layers.experts': 'MLP Experts',
  'layers.images': 'ImageEncoder',
  'training.evaluation': 'make_eval_step make_predictor predict',
  'training.fit': 'fit',
  'training.gradients': 'shared_leaves task_gradients',
  'training.steps': 'TrainState make_train_step',
  'types': 'Aggregator Balancer Batch Task',
}
# The module of each name.
_HOMES = {
  name: f'lplmtl.{module}'
  for module, names in _NAMES.items()
  for name in names.split()
}

__all__ = [*_MODULES, *_HOMES]


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


if not _typing.TYPE_CHECKING:  # or a type checker would accept any name

  def __getattr__(name: str) -> _typing.Any:
    if name in _MODULES:
      value = _importlib.import_module(f'lplmtl.{name}')
    elif name in _HOMES:
      value = getattr(_importlib.import_module(_HOMES[name]), name)
    else:
      return _moved.find(name)
    globals()[name] = value  # found without this function from now on
    return value
