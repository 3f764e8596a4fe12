"""LightGBM's trees as an ONNX graph, to be run by onnxruntime."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# TreeEnsemble, which knows sets of categories, is of the fifth version.
_OPSETS = {'': 21, 'ai.onnx.ml': 5}
_IR_VERSION = 10
_AT_MOST, _MEMBER = 0, 6  # of nodes_modes
_SUM = 1  # aggregate_function


class _Trees(NamedTuple):
  """The attributes of a TreeEnsemble: of inner nodes, then of leaves."""

  features: list[int]
  modes: list[int]
  splits: list[float]
  members: list[float]
  is_left: list[int]  # where a missing number goes
  children: list[list[tuple[int, int]]]  # (place, whether it is a leaf), twice
  leaves: list[float]


def to_model(boosters: Mapping[str, Any], num_inputs: int) -> Any:
  """Returns an `onnx.ModelProto`: `[N, M]` float64 to a probability per name.

  Args:
    boosters: `{output: booster}` of binary tasks, cut to the trees to use.
    num_inputs: M.

  Raises:
    ModuleNotFoundError: the package `onnx` is not installed.
  """
  from onnx import TensorProto, helper  # an extra

  double = TensorProto.DOUBLE
  return helper.make_model(
    helper.make_graph(
      [
        node
        for name, booster in boosters.items()
        # onnxruntime 1.32 leaves out the post_transform of this operator.
        for node in (
          _ensemble(helper, f'{name}_score', booster),
          helper.make_node('Sigmoid', [f'{name}_score'], [name]),
        )
      ],
      'trees',
      [helper.make_tensor_value_info('x', double, ['N', num_inputs])],
      [
        helper.make_tensor_value_info(name, double, ['N', 1])
        for name in boosters
      ],
    ),
    ir_version=_IR_VERSION,
    opset_imports=[helper.make_opsetid(*item) for item in _OPSETS.items()],
  )


def _ensemble(helper: Any, name: str, booster: Any) -> Any:
  trees = _Trees([], [], [], [], [], [], [])
  roots = [
    _add(trees, _with_split(tree['tree_structure']))[0]
    for tree in booster.dump_model()['tree_info']
  ]
  places, is_leaf = np.array(trees.children).transpose(2, 1, 0).tolist()

  def tensor(values: Sequence[float], dtype: Any = np.float64) -> Any:
    array = np.asarray(values, dtype)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor('', kind, array.shape, array)

  return helper.make_node(
    'TreeEnsemble',
    ['x'],
    [name],
    domain='ai.onnx.ml',
    n_targets=1,
    aggregate_function=_SUM,
    tree_roots=roots,
    nodes_featureids=trees.features,
    nodes_modes=tensor(trees.modes, np.uint8),
    nodes_splits=tensor(trees.splits),
    membership_values=tensor(trees.members),
    nodes_missing_value_tracks_true=trees.is_left,
    nodes_truenodeids=places[0],
    nodes_trueleafs=is_leaf[0],
    nodes_falsenodeids=places[1],
    nodes_falseleafs=is_leaf[1],
    leaf_weights=tensor(trees.leaves),
    leaf_targetids=[0] * len(trees.leaves),
  )


def _with_split(tree: Mapping[str, Any]) -> Mapping[str, Any]:
  """Returns a tree with an inner node, which ONNX wants."""
  if 'split_feature' in tree:
    return tree
  return {
    'split_feature': 0, 'decision_type': '<=', 'threshold': 0.0,
    'default_left': True, 'left_child': tree, 'right_child': tree,
  }  # fmt: skip


def _add(trees: _Trees, tree: Mapping[str, Any]) -> tuple[int, int]:
  """Adds a tree; returns its place, and whether it is a leaf."""
  if 'split_feature' not in tree:
    trees.leaves.append(tree['leaf_value'])
    return len(trees.leaves) - 1, 1
  place = len(trees.features)
  is_set = tree['decision_type'] == '=='
  trees.features.append(tree['split_feature'])
  trees.modes.append(_MEMBER if is_set else _AT_MOST)
  trees.splits.append(0.0 if is_set else tree['threshold'])
  if is_set:
    trees.members.extend(map(float, tree['threshold'].split('||')))
    trees.members.append(math.nan)  # ends the set
  trees.is_left.append(int(not is_set and tree['default_left']))
  trees.children.append([])
  for side in ('left_child', 'right_child'):
    trees.children[place].append(_add(trees, tree[side]))
  return place, 0
