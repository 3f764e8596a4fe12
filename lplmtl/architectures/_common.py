"""What architectures share: experts, encoders, towers and checks."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lplmtl.layers import copies, experts, mixture, modules, towers
from lplmtl.types import Array, Batch, Task

Predictions = tuple[dict[str, Array], dict[str, Any]]
# A template of the bodies of all towers, or a tuple with one per task.
TowerBody = nn.Module | tuple[nn.Module, ...]


class SharedExperts(nn.Module):
  """Base class of MMoE and OMoE: one pool of experts, and gates that mix it.

  The experts' outputs are a representation that all tasks share; the gates read
  the encoded features. A subclass defines `_gate_names`.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    expert: template of an expert f_i.
    num_experts: E.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  expert: nn.Module = experts.MLP((64,))
  num_experts: int = 8
  tower: TowerBody = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def setup(self) -> None:
    """Creates the parts that the methods share."""
    self.mixture = mixture.Mixture(
      modules.fresh(self.expert), modules.optional(self.gate_body)
    )
    nn.share_scope(self, self.mixture)
    self.towers = make_towers(self.tasks, self.tower)

  def __call__(self, features: Any, *, train: bool = False) -> Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict})`."""
    x = encode(self.encoder, features, train=train)
    return self._mix(mixture.Pool('experts', self.num_experts, x), x, train)

  def represent(self, features: Any, *, train: bool = False) -> Array:
    """Returns the outputs of the experts, `[B, E, H]`."""
    x = encode(self.encoder, features, train=train)
    pool = mixture.Pool('experts', self.num_experts, x)
    return self.mixture(pool, train=train)[0]['experts']

  def predict(
    self, representation: Array, features: Any, *, train: bool = False
  ) -> Predictions:
    """Predicts from `represent(features)`; the gates read the features."""
    x = encode(self.encoder, features, train=train)
    return self._mix(mixture.Given('experts', representation), x, train)

  def _gate_names(self) -> dict[str, str]:
    """Returns the gate of each task, or of 'shared', as `{task: gate}`."""
    raise NotImplementedError

  def _mix(
    self, pool: mixture.Pool | mixture.Given, x: Array, train: bool
  ) -> Predictions:
    names = self._gate_names()
    gates = [mixture.Gate(name, x, ('experts',)) for name in names.values()]
    outputs, logits = self.mixture(pool, gates, train=train)
    mixed, weights = mixture.weigh(outputs, logits, gates, train=train)
    by_gate = dict(zip(names, mixed, strict=True))
    inputs = {
      task: by_gate[task if task in by_gate else 'shared']
      for task in self.towers
    }
    predictions = predict(self, inputs, train=train)
    return predictions, {'gates': (dict(zip(names, weights, strict=True)),)}


def encode(encoder: nn.Module | None, features: Any, *, train: bool) -> Array:
  """Applies the encoder; without one, the features are the input."""
  if encoder is None:
    return features
  return modules.map_rows(encoder, features, train=train)


def task_names(tasks: Sequence[Task]) -> tuple[str, ...]:
  """Returns the names of the tasks, in order.

  Raises:
    ValueError: these are not tasks, or a name occurs twice or is reserved.
  """
  if not isinstance(tasks, tuple | list) or any(
    not isinstance(task, Task) for task in tasks
  ):
    raise ValueError(
      'tasks must be a tuple of lplmtl.Task, such as '
      f"(tasks.binary('click'),); found {tasks!r}"
    )
  names = tuple(task.name for task in tasks)
  reserved = {'shared', 'shared_experts'}  # keys of gates and pools
  if not names or len(set(names)) < len(names) or reserved & set(names):
    raise ValueError(
      "expected at least one task, with different names, none of them 'shared' "
      f"or 'shared_experts'; found {names}"
    )
  return names


def make_towers(
  tasks: Sequence[Task], bodies: TowerBody, **module: Any
) -> dict[str, towers.Tower]:
  """Creates one tower per task, `{task: tower}`.

  Call this in `setup` or in a compact method.

  Args:
    tasks: T tasks.
    bodies: one template for all tasks, or a tuple with one per task, in order.
    **module: `parent=None` for towers that are not bound to the calling module;
      the others are called `tower_<task>`.

  Raises:
    ValueError: the number of templates is wrong; and as for `task_names`.
  """
  names = task_names(tasks)
  templates = (
    bodies if isinstance(bodies, tuple | list) else (bodies,) * len(names)
  )
  if len(templates) != len(names):
    raise ValueError(
      'tower must be one template for all tasks, or a tuple with one for each '
      f'of {list(names)}; found {len(templates)}'
    )
  return {
    task.name: towers.Tower(
      modules.fresh(template),
      task.num_outputs,
      name=f'tower_{task.name}',
      **module,
    )
    for task, template in zip(tasks, templates, strict=True)
  }


def predict(
  module: Any, inputs: Mapping[str, Array], *, train: bool
) -> dict[str, Array]:
  """Applies one tower per task: `{task: [B, H]}` to `{task: [B, K]}`.

  Args:
    module: has `tasks` and `tower`. Call this in its compact method, or let its
      `setup` set `towers` to what `make_towers` returns.
    inputs: what the towers read.
    train: whether dropout is active.
  """
  bound = getattr(module, 'towers', None)
  if bound is None:
    bound = make_towers(module.tasks, module.tower)
  outputs = copies.apply(
    list(bound.values()),
    list(make_towers(module.tasks, module.tower, parent=None).values()),
    [inputs[name] for name in bound],
    train=train,
  )
  return dict(zip(bound, outputs, strict=True))


def apply_copies(
  module: nn.Module,
  template: nn.Module | None,
  inputs: Mapping[str, Any],
  *,
  train: bool,
) -> dict[str, Any]:
  """Applies copies of a template; returns the inputs if it is None.

  Args:
    module: the module that owns the parameters; call this in its compact
      method.
    template: of all copies.
    inputs: what each copy reads, by its name.
    train: whether dropout is active.
  """
  if template is None:
    return dict(inputs)
  # Each copy is made of an unbound one of its own: `clone` is shallow, so that
  # the modules inside a template would have one set of parameters for all.
  bound = [
    modules.fresh(template).clone(parent=module, name=name) for name in inputs
  ]
  outputs = copies.apply(
    bound,
    [modules.fresh(template)] * len(inputs),
    list(inputs.values()),
    train=train,
  )
  return dict(zip(inputs, outputs, strict=True))


def apply_trunks(
  module: Any, features: Any, *, train: bool
) -> dict[str, Array]:
  """Applies one encoder and one trunk per task; returns `{task: [B, H]}`.

  They are copies of the calling module's templates `encoder` and `bottom`,
  called `encoder_<task>` and `bottom_<task>`.
  """
  names = task_names(module.tasks)
  hidden = dict.fromkeys(names, features)
  for part in ('encoder', 'bottom'):
    inputs = {f'{part}_{name}': x for name, x in hidden.items()}
    outputs = apply_copies(module, getattr(module, part), inputs, train=train)
    hidden = dict(zip(names, outputs.values(), strict=True))
  return hidden


def check_chain(tasks: Sequence[Task]) -> tuple[str, ...]:
  """Returns the names of the tasks of a chain.

  A chain multiplies probabilities, so each task needs a single logit and the
  `label_range` of a binary task.

  Raises:
    ValueError: there are fewer than two tasks, or one of them is not binary.
  """
  names = task_names(tasks)
  wrong = [
    task.name
    for task in tasks
    if task.num_outputs != 1 or task.label_range != (0, 1)
  ]
  if len(names) < 2 or wrong:
    message = (
      'a chain needs two or more binary tasks in the order in which they '
      f'happen, such as click and buy; found {names}'
    )
    if wrong:
      message += (
        f', of which {wrong[0]!r} is not binary (num_outputs=1 and '
        'label_range=(0, 1), as in lplmtl.tasks.binary)'
      )
    raise ValueError(message)
  return names


def check_chain_labels(tasks: Sequence[Task], batch: Batch, name: str) -> None:
  """Checks that no step of a chain happens without the step before it.

  Args:
    tasks: the tasks of the chain, in order.
    batch: rows with labels; not traced.
    name: what to call the rows in the message, such as 'validation'.

  Raises:
    ValueError: the tasks are out of order, or do not form a chain.
  """
  masks = batch.where or {}
  for before, after in itertools.pairwise(task.name for task in tasks):
    wrong = (np.asarray(batch.labels[after]) > 0) & (
      np.asarray(batch.labels[before]) == 0
    )
    for task in (before, after):
      if task in masks:
        wrong = wrong & np.asarray(masks[task])
    if wrong.any():
      raise ValueError(
        f'{int(wrong.sum()):,} of the {len(wrong):,} rows of {name} have '
        f'{after!r} without {before!r}, which precedes it in the chain: give '
        'the tasks in the order in which they happen'
      )


def serves_later_tasks(tasks: Sequence[Task], path: tuple[str, ...]) -> bool:
  """Returns whether a parameter belongs to a chain's step before the last."""
  last = tasks[-1].name
  return path[0] == 'encoder' or path[0].partition('_')[2] != last


def check_levels(levels: Any) -> None:
  """Raises ValueError unless `levels` is a tuple of expert templates."""
  is_tuple = isinstance(levels, tuple | list) and len(levels) > 0
  if not is_tuple or not all(isinstance(x, nn.Module) for x in levels):
    found = levels
    if isinstance(levels, nn.Module):
      found = f'one {type(levels).__name__}'
    raise ValueError(
      '`levels` must hold one expert template per level, such as '
      f'(MLP((64,)), MLP((64,))); found {found}'
    )


def check_weight(name: str, value: Any, least: float = 0.0) -> None:
  """Raises ValueError unless `value` is >= `least`; arrays are not checked."""
  if isinstance(value, jax.Array | np.ndarray | np.generic):
    return
  if not isinstance(value, int | float) or not value >= least:
    raise ValueError(
      f'{name} must be a number of at least {least}, found {value!r}'
    )
