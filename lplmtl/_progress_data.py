"""The progress of `fit` as arrays and JSON data, and back."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.storage.errors import CheckpointError
from lplmtl.training.progress import Progress, from_json
from lplmtl.types import PyTree

FORMAT = 1  # of a checkpoint: the layout of its arrays and metadata
# The fields of a Progress that hold arrays, as checkpoints name them.
_ARRAYS = ('state', 'best_params', 'metrics', 'choice', 'num_skipped')


class RestoreError(CheckpointError):
  """Checkpoints that a run cannot resume from."""


def json_data(name: str, data: Mapping[str, Any] | None) -> dict[str, Any]:
  """Returns data as JSON reads it back: tuples become lists.

  Args:
    name: what to call the data in messages.
    data: a dict; None for an empty one.

  Raises:
    ValueError: `data` is not JSON data.
  """
  try:
    plain: dict[str, Any] = json.loads(json.dumps({**(data or {})}))
    return plain
  except TypeError as error:
    raise ValueError(
      f'{name} must be a dict of JSON data, such as {{"rate": 0.1}}: {error}; '
      f'found {data!r}'
    ) from error


def differences(old: Any, new: Any, name: str = '') -> list[str]:
  """Lists where two JSON values differ, such as `['rate (0.1, now 0.2)']`."""
  if isinstance(old, dict) and isinstance(new, dict):
    keys = [*old, *(key for key in new if key not in old)]
    return [
      text
      for key in keys
      for text in differences(
        old.get(key), new.get(key), f'{name}.{key}' if name else key
      )
    ]
  same = json.dumps(old) == json.dumps(new)  # as text, a NaN equals itself
  return [] if same else [f'{name or "value"} ({old}, now {new})']


def check_run(folder: pathlib.Path, meta: Mapping[str, Any], run: Any) -> None:
  """Raises RestoreError for a checkpoint of another format or another run.

  Args:
    folder: the checkpoint, in the folder of all checkpoints of a run.
    meta: its metadata.
    run: JSON data that describe this run.
  """
  if meta.get('format') != FORMAT or 'run' not in meta:
    raise RestoreError(
      f'{folder} has format {meta.get("format")!r:.50}, and this release reads '
      f'format {FORMAT}: remove {folder.parent} to start afresh'
    )
  different = differences(meta['run'], run)
  if different:
    raise RestoreError(
      f'{folder.parent} holds another run, which differs in '
      f'{", ".join(different)}: choose another folder, or remove these '
      'checkpoints'
    )


def to_data(progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
  """Converts a progress to nested dicts of NumPy arrays, and JSON data.

  The history is left out; see `lplmtl.training.progress.to_json`.
  """
  data: dict[str, Any] = {}
  leaves = jax.tree_util.tree_flatten_with_path(_arrays_of(progress))[0]
  for path, leaf in leaves:
    *above, name = (jax.tree_util.keystr((key,), simple=True) for key in path)
    node = data
    for key in above:
      node = node.setdefault(key, {})
    if _is_key(leaf):
      leaf = jax.random.key_data(leaf)
    node[name] = leaf
  meta: dict[str, Any] = {'epoch': progress.epoch, 'step': progress.step}
  if progress.fingerprint:  # else as in older checkpoints
    meta['data'] = progress.fingerprint
  return jax.device_get(data), meta


def from_data(
  like: Progress,
  arrays: dict[str, Any],
  meta: dict[str, Any],
  folder: pathlib.Path,
) -> Progress:
  """Restores a progress: the inverse of `to_data`.

  Args:
    like: a progress with the structure, shapes, dtypes and random keys to
      restore.
    arrays: nested dicts of NumPy arrays.
    meta: JSON data, including the `history`.
    folder: where they come from, for messages.

  Raises:
    RestoreError: they do not fit `like`.
  """

  def find(path: Any, old: Any) -> Any:
    node: Any = arrays
    for key in path:
      name = jax.tree_util.keystr((key,), simple=True)
      node = node.get(name) if isinstance(node, dict) else None
    raw = jax.random.key_data(old) if _is_key(old) else old
    shape = getattr(node, 'shape', None), getattr(node, 'dtype', None)
    if shape != (raw.shape, raw.dtype):
      stored = 'nothing' if node is None else f'a {type(node).__name__}'
      if hasattr(node, 'shape'):
        stored = f'{node.dtype}{node.shape}'
      raise RestoreError(
        f'{folder} does not fit this run: expected {raw.dtype}{raw.shape} at '
        f'{jax.tree_util.keystr(path)}, found {stored}'
      )
    if _is_key(old):
      return jax.random.wrap_key_data(node, impl=jax.random.key_impl(old))
    return node

  restored = jax.tree_util.tree_map_with_path(find, _arrays_of(like))
  extra = len(jax.tree.leaves(arrays)) - len(jax.tree.leaves(restored))
  if extra:
    raise RestoreError(
      f'{folder} does not fit this run: it holds {extra} arrays too many, '
      'perhaps those of another optimizer or balancer'
    )
  _check_meta(meta, like, folder)
  if meta.get('data', '') != like.fingerprint:
    raise RestoreError(
      f'{folder} holds a run on other rows: the source of the data is not the '
      'one of that run, or has changed since: restore it, choose another '
      'folder, or remove these checkpoints'
    )
  old, new = restored['state'].key, like.state.key
  if not np.array_equal(jax.random.key_data(old), jax.random.key_data(new)):
    raise RestoreError(
      f'{folder} holds a run with another random key: choose another folder, '
      'or remove these checkpoints'
    )
  return like._replace(
    epoch=meta['epoch'],
    step=meta['step'],
    history=tuple(from_json(record) for record in meta['history']),
    **restored,
  )


def _arrays_of(progress: Progress) -> dict[str, PyTree]:
  return {name: getattr(progress, name) for name in _ARRAYS}


def _check_meta(
  meta: Mapping[str, Any], like: Progress, folder: pathlib.Path
) -> None:
  """Raises RestoreError for an epoch, step or history that no run can have."""
  epoch, step, history = (meta.get(k) for k in ('epoch', 'step', 'history'))
  is_possible = (
    type(epoch) is type(step) is int
    and isinstance(history, list)
    and [r.get('epoch') for r in history if isinstance(r, dict)]
    == list(range(1, epoch + 1))
    and 0 <= step <= like.num_steps
  )
  if not is_possible:
    raise RestoreError(
      f'{folder} does not fit this run: found epoch {epoch!r:.50} and step '
      f'{step!r:.50}, with a history of other epochs'
    )


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
