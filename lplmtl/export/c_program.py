"""The operations of a program as C99."""

from lplmtl.export import c_loops, c_memory, c_moves
from lplmtl.export.c_loops import Values
from lplmtl.export.nodes import Node
from lplmtl.export.program import Program

# {0}, {1}, ... are the operands.
_EXPRESSIONS = {
  'add': '({0} + {1})',
  'subtract': '({0} - {1})',
  'multiply': '({0} * {1})',
  'divide': '({0} / {1})',
  'quotient': '({0} / {1})',
  'remainder': '({0} % {1})',
  'negative': '(-{0})',
  'less': '({0} < {1})',
  'less_equal': '({0} <= {1})',
  'equal': '({0} == {1})',
  'not_equal': '({0} != {1})',
  'logical_and': '({0} && {1})',
  'logical_or': '({0} || {1})',
  'logical_not': '(!{0})',
  'where': '({0} ? {1} : {2})',
  'isfinite': '(isfinite({0}) != 0)',
  'power': 'powf({0}, {1})',
  'absolute': 'fabsf({0})',
  'floor': 'floorf({0})',
  'ceil': 'ceilf({0})',
  'sqrt': 'sqrtf({0})',
  'exp': 'power_of_e({0})',
  'log': 'logarithm({0})',
  'expm1': 'power_less_1({0})',
  'log1p': 'logarithm_of_1_more({0})',
  'tanh': 'tangent({0})',
  'sin': 'sinf({0})',
  'cos': 'cosf({0})',
  'erf': 'erff({0})',
  'logistic': 'logistic({0})',
  'sign': 'sign({0})',
  'maximum': 'larger({0}, {1})',
  'minimum': 'smaller({0}, {1})',
}
_OF_INTEGERS = {
  'maximum': 'larger_integer({0}, {1})',
  'minimum': 'smaller_integer({0}, {1})',
  'absolute': '({0} < 0 ? -{0} : {0})',
  'sign': '(({0} > 0) - ({0} < 0))',
}
# How a reduction starts, and how it takes one number more.
_REDUCTIONS = {
  'sum': ('0', '{0} += {1}'),
  'prod': ('1', '{0} *= {1}'),
  'max': ('', '{0} = larger({0}, {1})'),
  'min': ('', '{0} = smaller({0}, {1})'),
}


def statements(program: Program, values: Values) -> list[str]:
  """Returns the lines that compute all values, in order."""
  lines = []
  for node in program.operations:
    is_stored = id(node) in values.memory.offsets
    if is_stored:
      lines += _statement(node, values)
  return lines


def copied_to(target: str, node: Node, values: Values) -> list[str]:
  """Returns the lines that copy a value to an array."""
  steps = c_loops.steps_of(node.shape)
  to = (lambda index: f'{target}[{index}]'), steps, 0
  return c_loops.copy(node.shape, to, c_loops.numbers(node, values))


def _statement(node: Node, values: Values) -> list[str]:
  if node.kind in c_memory.ELEMENTWISE:
    return _elementwise(node, values)
  if node.kind in _REDUCTIONS:
    return _reduction(node, values)
  return c_moves.STATEMENTS[node.kind](node, values)


def _elementwise(node: Node, values: Values) -> list[str]:
  operands = c_memory.leaves(node, values.memory.inlined)
  rank = len(node.shape)
  every = [
    c_loops.steps_of((1,) * (rank - len(x.shape)) + x.shape)
    for x in [*operands, node]
  ]
  sizes, steps = c_loops.joined(node.shape, every)
  indices = iter([c_loops.index(sizes, one) for one in steps[:-1]])

  def expression(x: Node) -> str:
    parts = [
      expression(y)
      if id(y) in values.memory.inlined
      else values.at(y, next(indices))
      for y in x.operands
    ]
    form = _form(x)
    if not form.startswith('('):  # a call
      parts = [_bare(part) for part in parts]
    return form.format(*parts)

  target = values.at(node, c_loops.index(sizes, steps[-1]))
  return c_loops.loops(sizes, [f'{target} = {_bare(expression(node))};'])


def _form(node: Node) -> str:
  if node.kind == 'astype':
    kind = {'float32': '(float)', 'int32': '(int32_t)', 'bool': '0 != '}
    return f'({kind[node.dtype]}{{0}})'
  if node.operands[0].dtype != 'float32' and node.kind in _OF_INTEGERS:
    return _OF_INTEGERS[node.kind]
  return _EXPRESSIONS[node.kind]


def _bare(expression: str) -> str:
  """Returns an expression without a pair of parentheses around it all."""
  if not expression.startswith('('):
    return expression
  depth = 0
  for place, character in enumerate(expression):
    depth += (character == '(') - (character == ')')
    if depth == 0 and place < len(expression) - 1:
      return expression
  return expression[1:-1]


def _reduction(node: Node, values: Values) -> list[str]:
  x = node.operands[0]
  axes = [axis % len(x.shape) for axis in node.options['axis']]
  order = [i for i in range(len(x.shape)) if i not in axes]
  to = iter(c_loops.steps_of(node.shape))
  steps = [next(to) if i in order else 0 for i in range(len(x.shape))]
  place = [*order, *axes]  # loops over what is kept come first
  every = [
    [one[i] for i in place] for one in (c_loops.steps_of(x.shape), steps)
  ]
  sizes, (from_steps, to_steps) = c_loops.joined(
    [x.shape[i] for i in place], every
  )
  start, step = _REDUCTIONS[node.kind]
  if node.dtype != 'float32':
    step = step.replace('er(', 'er_integer(')
  outer = [n for n, s in zip(sizes, to_steps, strict=True) if s]
  count = len(outer)
  # The maximum starts with the first number of each group.
  begin = start or values.at(x, c_loops.index(outer, from_steps[:count]))
  target = values.at(node, c_loops.index(outer, to_steps[:count]))
  lines = c_loops.loops(outer, [f'{target} = {begin};'])
  one = step.format(
    values.at(node, c_loops.index(sizes, to_steps)),
    values.at(x, c_loops.index(sizes, from_steps)),
  )
  return [*lines, *c_loops.loops(sizes, [f'{one};'])]
