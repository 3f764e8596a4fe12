"""Row-sparse ("lazy") optimisers for large tables of embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import optax


class Lazy(optax.GradientTransformationExtraArgs):
  """An optimiser that changes only those rows of tables that a batch reads.

  Made by `lazy`; training recognises it.

  Attributes:
    optimizer: the transformation that it applies to the rows, and to all other
      parameters.
    tables: names of parameters, or None; see `lazy`.
    sharded: see `lazy`.
    parts: `{path: shape and dtype}` of the whole tables of which each device
      holds a part; set by training.
  """

  optimizer: optax.GradientTransformation
  tables: tuple[str, ...] | None
  sharded: bool
  parts: Mapping[tuple[str, ...], Any]

  def with_parts(self, parts: Mapping[tuple[str, ...], Any]) -> 'Lazy':
    """Returns the same optimiser with other parts."""
    made = lazy(self.optimizer, self.tables, sharded=self.sharded)
    made.parts = parts
    return made


def lazy(
  optimizer: optax.GradientTransformation,
  tables: Sequence[str] | None = None,
  *,
  sharded: bool = False,
) -> Lazy:
  """Returns an optimiser whose step costs what the rows of a batch cost.

      lplmtl.fit(key, model, sparse.lazy(optax.adam(1e-3)), balancer, data)

  For vocabularies of 100,000 values and more: a step of dense Adam reads and
  writes the whole table and its two moments, most of whose gradient is 0; this
  one reads and writes the rows that the batch looks up (`layers.lookup`), and
  their moments. Parameters that are no tables are trained as ever.

  **Lazy Adam is not Adam.** In Adam, the moments of a row decay in every step,
  and a row keeps moving for some steps after it was read. Here, a row that the
  batch does not read stays as it is, and so do its moments, until it is read
  again; the bias correction counts all steps. Rare values therefore keep the
  momentum of rows seen long ago, and need their own tuning of the learning
  rate. Weight decay, likewise, acts on a row only when it is read. Where a
  batch reads every row, both are the same. Adagrad (`optax.adagrad`) changes
  nothing where the gradient is 0, so that its lazy form is exactly Adagrad, and
  so is plain SGD's.

  Balancers see the gradients of the rows, whose norms and inner products are
  those of the whole tables. Those that remember a gradient of each parameter
  (MoCo, DB-MTL, ExcessMTL) are refused.

  Args:
    optimizer: any optax transformation that treats each row of a table by
      itself, such as Adam, AdamW, Adagrad, RMSprop, SGD and chains of them,
      with schedules, `inject_hyperparams` or clipping of the gradient's norm.
      It is asked for once per step, so that steps cannot be collected
      (`optax.MultiSteps`). Training refuses others, such as LAMB or Adafactor.
    tables: the tables to treat in this way, by their names or the ends of
      these: `encoder/embedding`, or `embedding` for those of all encoders.
      None for all tables that the model looks up by `layers.lookup.take`.
    sharded: whether each device holds an equal part of the rows of each table,
      and of what the optimiser keeps for them, where `fit` splits the batches
      of one seed over devices. Steps then exchange the rows of a batch. The
      number of rows must be a multiple of that of devices, as with
      `TabularEncoder(multiple_of=8)`. Not for a function of hyperparams.

  Returns:
    An optimiser for `fit` and `make_train_step`. It wraps all others:
    `lazy(optax.chain(...))`, not `optax.chain(lazy(...))`.

  Raises:
    ValueError: `tables` is a text or empty, or `optimizer` is no optimiser or
      collects steps.

  References:
    Duchi et al. 2011, "Adaptive Subgradient Methods"; `LazyAdam` of TensorFlow
    Addons and `SparseAdam` of PyTorch do the same to Adam.
  """
  if isinstance(optimizer, optax.MultiSteps):
    raise ValueError(
      'sparse.lazy refuses optimisers that collect steps, such as '
      'optax.MultiSteps: each step shows an optimiser only the rows that its '
      'batch reads; take larger batches instead'
    )
  if not isinstance(optimizer, optax.GradientTransformation):
    raise ValueError(
      f'expected an optax optimiser, such as optax.adam(1e-3); found '
      f'{optimizer!r}'
    )
  if isinstance(optimizer, Lazy):
    raise ValueError('expected an optax optimiser, found one that is lazy')
  if isinstance(tables, str) or (tables is not None and not tables):
    raise ValueError(
      'tables must be a list of names, such as ["encoder/embedding"], or None '
      f'for all; found {tables!r}'
    )
  made = Lazy(optimizer.init, _refuse)
  made.optimizer = optimizer
  made.tables = None if tables is None else tuple(tables)
  made.sharded, made.parts = sharded, {}
  return made


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
  raise ValueError(
    'sparse.lazy must be the outermost optimiser, sparse.lazy(optax.chain(...))'
    ', and needs the steps of lplmtl.fit or lplmtl.make_train_step'
  )


def plain(optimizer: Any) -> Any:
  """Returns the optimiser of all parameters, lazy or not."""
  return optimizer.optimizer if isinstance(optimizer, Lazy) else optimizer
