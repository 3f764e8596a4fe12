"""Traces a model at inference, and turns the trace into a Program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lplmtl import _checks
from lplmtl.compression import cost, quantization
from lplmtl.export import codes, meanings, nodes, primitives
from lplmtl.export.nodes import Node
from lplmtl.export.program import Program
from lplmtl.types import PyTree

# How the parameters of a call name the program that it runs.
_INSIDE = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')


class UnsupportedError(ValueError):
  """A model uses an operation that the intermediate form does not have."""


def trace(
  model: Any,
  params: PyTree,
  features: PyTree,
  *,
  scales: Mapping[str, tuple[float, float]] | None = None,
  logits: bool = False,
) -> Program:
  """Returns the program from features to predictions, or to logits.

  Args:
    model: see `lplmtl.types.Model`; its modules may be anybody's. The weights
      of a Quantized one stay codes, see `codes.with_codes`.
    params: its parameters, of one seed.
    features: rows to read shapes from, `[N, ...]`, an array or a dict of
      arrays.
    scales: `{task: (mean, std)}` of labels that were standardised.
    logits: return what the model does: logits of probabilities, logarithms of
      counts, standardised numbers. Scales must be None then.

  Returns:
    A program whose outputs are probabilities (binary, multi-label, multiclass
    and ordinal tasks), expected counts, or numbers: see `meanings.of`.

  Raises:
    UnsupportedError: the model uses a primitive of JAX without a counterpart;
      the message names it, and the module.
    ValueError: the arguments are no model, parameters and features.

  Example:
    >>> import lplmtl, jax.numpy as jnp
    >>> from lplmtl import tasks
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> x = jnp.ones((3, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> program = trace(model, params, x)
    >>> [node.kind for node in program.operations]  # biases are still 0
    ['matmul', 'maximum', 'matmul', 'maximum', 'matmul', 'logistic']
  """
  if isinstance(model, quantization.Quantized):
    frozen = quantization.freeze(model, params)
    rounded = quantization.thaw(frozen)
    program = trace(
      model.model, rounded, features, scales=scales, logits=logits
    )
    return codes.with_codes(program, frozen)
  names, predict, row = inference(
    model, params, features, scales, logits=logits
  )
  found, shapes = jax.make_jaxpr(predict, return_shape=True)(*row)
  inputs = [
    Node('input', x.shape, nodes.dtype_name(x.dtype), options={'name': name})
    for name, x in zip(names, row, strict=True)
  ]
  flat = _run(found.jaxpr, found.consts, inputs, '')
  outputs = jax.tree.unflatten(jax.tree.structure(shapes), flat)
  return Program(
    dict(zip(names, inputs, strict=True)),
    {task.name: _as_row(outputs[task.name]) for task in model.tasks},
  )


def inference(
  model: Any,
  params: PyTree,
  features: PyTree,
  scales: Mapping[str, tuple[float, float]] | None,
  *,
  logits: bool = False,
) -> tuple[
  list[str], Callable[..., dict[str, Any]], list[jax.ShapeDtypeStruct]
]:
  """Returns what a model computes, as a function of arrays.

  Args:
    model: as for `trace`, and so are the others.
    params: its parameters.
    features: to read shapes from.
    scales: of labels.
    logits: whether outputs stay as they are.

  Returns:
    `(names, predict, row)`: the names of features, one that is empty for a
    single array; the function from as many arrays, `[B, ...]`, to predictions,
    `{task: [B, ..., K]}`; and the shapes and dtypes of these arrays for B = 1.

  Raises:
    ValueError: see `trace`.
  """
  _checks.check_call(model, params)
  names = list(features) if isinstance(features, Mapping) else ['']
  if not all(isinstance(name, str) for name in names):
    raise ValueError(f'names of features must be strings, found {names}')
  parts = [features[name] for name in names] if names != [''] else [features]
  if not parts or not all(getattr(part, 'ndim', 0) for part in parts):
    raise ValueError(
      'features must be an array [N, ...] or a dict of such arrays, found '
      f'{jax.tree.map(np.shape, features)}'
    )
  if logits and scales:
    raise ValueError(
      f'scales are for predictions, not for logits: found {dict(scales)}'
    )
  links: dict[str, Callable[[Any], Any]] = {
    task.name: (lambda x: x)
    if logits
    else meanings.of(task, *(scales or {}).get(task.name, ()))
    for task in model.tasks
  }

  def predict(*parts: Any) -> dict[str, Any]:
    row = parts[0] if names == [''] else dict(zip(names, parts, strict=True))
    found = _checks.model_outputs(model.apply({'params': params}, row))[0]
    return {name: link(found[name]) for name, link in links.items()}

  row = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in parts]
  return names, predict, row


def _as_row(output: Node) -> Node:
  """Returns `[1, K]`, also of outputs `[1, ..., K]`."""
  return nodes.reshape(output, (1, int(np.prod(output.shape))))


def _run(
  jaxpr: Any, consts: Sequence[Any], operands: Sequence[Node], scope: str
) -> list[Node]:
  """Returns the outputs of a traced program."""
  found = dict(zip(jaxpr.constvars, map(_constant, consts), strict=True))
  found |= dict(zip(jaxpr.invars, operands, strict=True))

  def read(variable: Any) -> Node:
    is_literal = hasattr(variable, 'val')
    return _constant(variable.val) if is_literal else found[variable]

  for equation in cost.live(jaxpr):
    outputs = _equation(equation, [read(v) for v in equation.invars], scope)
    found |= dict(zip(equation.outvars, outputs, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _constant(value: Any) -> Node:
  return value if isinstance(value, Node) else nodes.constant(value)


def _equation(
  equation: Any, operands: list[Node], scope: str
) -> Sequence[Node]:
  own = str(getattr(equation.source_info, 'name_stack', ''))
  scope = '/'.join(part for part in (scope, own) if part)
  result = primitives.convert(equation, operands)
  if result is not None:
    return [result] if isinstance(result, Node) else result
  inside = [equation.params[n] for n in _INSIDE if n in equation.params]
  if inside and 'length' not in equation.params:  # a call; scans have a length
    jaxpr = getattr(inside[0], 'jaxpr', inside[0])
    consts = getattr(inside[0], 'consts', ())
    if len(jaxpr.invars) == len(operands):
      return _run(jaxpr, consts, operands, scope)
  if all(x.data is not None for x in operands):
    return _folded(equation, operands, scope)
  raise _unsupported(equation, operands, scope)


def _folded(equation: Any, operands: list[Node], scope: str) -> Sequence[Node]:
  """Lets JAX compute what depends on parameters only."""
  values = [
    jax.numpy.asarray(x.data, v.aval.dtype)
    for x, v in zip(operands, equation.invars, strict=True)
  ]
  try:
    found = equation.primitive.bind(*values, **equation.params)
  except Exception as error:  # a primitive may raise any
    raise _unsupported(equation, operands, scope) from error
  is_many = equation.primitive.multiple_results
  return [nodes.constant(x) for x in (found if is_many else [found])]


def _unsupported(
  equation: Any, operands: list[Node], scope: str
) -> UnsupportedError:
  shapes = ', '.join(f'{x.dtype}{list(x.shape)}' for x in operands)
  where = f' in {scope}' if scope else ''
  return UnsupportedError(
    f'cannot export the primitive {equation.primitive.name!r} of '
    f'({shapes}){where}: put that part of the model in other operations'
  )
