"""The layers of a packed model, in C99; see `compression.reference`."""

from collections.abc import Mapping
from typing import NamedTuple

from lplmtl.compression import packing
from lplmtl.compression.packing import Packed
from lplmtl.export import c_helpers, c_text


class _Place(NamedTuple):
  """Where a parameter lies.

  Attributes:
    leaf: how it is stored.
    start: of its numbers in their stream.
    scale_start: of its scales in theirs.
  """

  leaf: packing.Leaf
  start: int
  scale_start: int

  def code(self, index: str) -> str:
    """Returns the expression of a number before it is scaled."""
    stream, *_ = next(iter(self.leaf.streams))
    return f'{_READ[self.leaf.bits]}({stream}, {_plus(self.start, index)})'

  def scale(self, index: str) -> str:
    """Returns the expression of a scale; 1 for floats."""
    if not self.leaf.scale_bits:
      return '1'
    read = _READ_SCALE[self.leaf.scale_bits]
    at = _plus(self.scale_start, index)
    return f'{read}(scales{self.leaf.scale_bits}, {at})'


def _plus(start: int, index: str) -> str:
  return f'{start} + {index}' if start else index


# Of codes; whole numbers of 16 and 32 bits are floats.
_READ = {
  2: 'ternary_at', 3: 'code3_at', 4: 'code4_at', 8: 'code8_at',
  16: 'half_at', 32: 'single_at',
}  # fmt: skip
_READ_SCALE = {8: 'scale8_at', 16: 'half_at', 32: 'single_at'}


def source(
  name: str, packed: Packed, sizes: Mapping[str, int], num_numbers: int
) -> str:
  """Returns the function `run`, which calls some of HELPERS.

  Args:
    name: the beginning of all public names.
    packed: a model that `compression.reference` scores.
    sizes: `{task: K}`.
    num_numbers: numbers and flags that a row is encoded as.
  """
  layers = _Layers(packed, num_numbers)
  outputs = c_text.identifiers(sizes)
  for task in sizes:
    layers.tower(task, f'found->{outputs[task]}')
  arrays = [f'  float {array}[{n}];' for array, n in layers.arrays.items()]
  body = '\n'.join(layers.lines)
  unused = [
    f'  (void){one};' for one in ('ids', 'numbers') if f'{one}[' not in body
  ]
  return '\n'.join(
    [
      'static void run(const uint16_t *ids, const float *numbers,'
      f' {name}_prediction *found) {{',
      *arrays,
      '  int h, d, e;',
      *unused,
      body,
      '}',
      '',
    ]
  )


class _Layers:
  """Collects the lines of a model, layer by layer."""

  def __init__(self, packed: Packed, num_numbers: int):
    self.lines: list[str] = []
    self.arrays: dict[str, int] = {}
    self._params = packing.unpack(packed)
    self._places = _places(packed)
    table = self._places[_table(self._places)]
    self._table, self._width = table, table.leaf.shape[1]
    self._columns = len(table.leaf.sizes)
    self._numbers = num_numbers
    self._trunk = self._cross()
    for i in range(len(self._params.get('bottom', {}))):
      self._trunk = self._dense(f'bottom/layer_{i}', self._trunk, relu=True)

  def tower(self, task: str, target: str) -> None:
    """Adds the layers of a task, which write to `target`."""
    x, path = self._trunk, f'tower_{task}'
    for i in range(len(self._params[path].get('body', {}))):
      x = self._dense(f'{path}/body/layer_{i}', x, relu=True)
    self._dense(f'{path}/head', x, target=target)

  def _cross(self) -> str:
    """Returns the array of the encoded row; '' stands for its codes."""
    encoder = self._params['encoder']
    if 'encoder' not in encoder:
      return ''
    first, x = self._row(), ''
    size = self.arrays[first]
    for i in range(len(encoder) // 2):
      down = self._dense(f'encoder/down_{i}', x)
      up = self._dense(f'encoder/up_{i}', down)
      new, old = self._array(size), x or first
      self.lines.append(
        f'  for (d = 0; d < {size}; d++) {new}[d] = {first}[d] * {up}[d] + '
        f'{old}[d];'
      )
      x = new
    return x or first

  def _row(self) -> str:
    """Adds an array of the encoded row, as floats."""
    split = self._columns * self._width
    first = self._array(split + self._numbers)
    self.lines += [
      f'  for (d = 0; d < {self._columns}; d++)',
      f'    for (e = 0; e < {self._width}; e++)',
      f'      {first}[{self._width} * d + e] =',
      f'          (float){self._code_of_row()} * {self._table.scale("d")};',
    ]
    if self._numbers:
      self.lines.append(
        f'  for (d = 0; d < {self._numbers}; d++) '
        f'{first}[{split} + d] = numbers[d];'
      )
    return first

  def _array(self, size: int) -> str:
    name = f'x{len(self.arrays)}'
    self.arrays[name] = size
    return name

  def _code_of_row(self) -> str:
    return self._table.code(f'{self._width} * ids[d] + e')

  def _dense(
    self, path: str, x: str, *, relu: bool = False, target: str = ''
  ) -> str:
    """Adds a layer; returns the array of its outputs."""
    kernel, bias = (
      self._places[f'{path}/kernel'],
      self._places.get(f'{path}/bias'),
    )
    inputs, width = kernel.leaf.shape
    if not x and not kernel.leaf.scale_bits:
      x = self._row()
    target = target or self._array(width)
    per_output = kernel.leaf.scale_shape[-1:] == (width,) and width > 1
    result = f'sum * {kernel.scale("h" if per_output else "0")}'
    if not kernel.leaf.scale_bits:
      result = 'sum'
    if bias:
      result += f' + {self._value(bias)}'
    lines = [f'  for (h = 0; h < {width}; h++) {{', '    float sum = 0;']
    lines += self._sums(kernel, x, width, inputs)
    lines.append(f'    sum = {result};')
    if relu:
      lines.append('    if (!(sum > 0)) sum = 0;')
    self.lines += [*lines, f'    {target}[h] = sum;', '  }']
    return target

  def _sums(self, kernel: _Place, x: str, width: int, inputs: int) -> list[str]:
    """Returns the lines that add products, one input after the other."""
    if x:
      weight = kernel.code(f'{width} * d + h')
      return [
        f'    for (d = 0; d < {inputs}; d++)',
        f'      sum += {x}[d] * (float){weight};',
      ]
    weight = kernel.code(f'{width} * ({self._width} * d + e) + h')
    lines = [
      f'    for (d = 0; d < {self._columns}; d++) {{',
      '      int32_t product = 0;',
      f'      for (e = 0; e < {self._width}; e++)',
      f'        product += (int32_t){self._code_of_row()} * {weight};',
      f'      sum += (float)product * {self._table.scale("d")};',
      '    }',
    ]
    if self._numbers:
      first = kernel.start + width * self._columns * self._width
      weight = kernel._replace(start=first).code(f'{width} * d + h')
      lines += [
        '    {',
        '      float others = 0;',
        f'      for (d = 0; d < {self._numbers}; d++)',
        f'        others += numbers[d] * (float){weight};',
        '      sum += others;',
        '    }',
      ]
    return lines

  def _value(self, bias: _Place) -> str:
    code = bias.code('h')
    if not bias.leaf.scale_bits:
      return code
    shape = bias.leaf.scale_shape
    is_each = bool(shape) and shape[-1] > 1
    return f'(float){code} * {bias.scale("h" if is_each else "0")}'


HELPERS = {
  # Not a call of `float32_at`: on a Cortex-M4 that takes 20 to 40 bytes more.
  'single_at': c_helpers.FLOAT32.format(
    head='single_at(const uint8_t *data, int k)', step='  data += 4 * k;\n'
  ),
  'of_half': """
/* A float16; there are no infinite ones. */
static float of_half(uint32_t half) {
  union {
    uint32_t bits;
    float number;
  } found;
  const uint32_t sign = half >> 15 << 31, exponent = half >> 10 & 31;
  if (exponent == 0) {
    const float small = (float)(half & 1023) * 5.96046448e-8f;
    return sign ? -small : small;
  }
  found.bits = sign | (exponent + 112) << 23 | (half & 1023) << 13;
  return found.number;
}
""",
  'half_at': """
static float half_at(const uint8_t *data, int k) {
  return of_half(data[2 * k] | (uint32_t)data[2 * k + 1] << 8);
}
""",
  'scale8_at': """
static float scale8_at(const uint8_t *data, int k) {
  return of_half((uint32_t)data[k] << 7);
}
""",
  'code8_at': """
static int code8_at(const uint8_t *data, int k) {
  return data[k] < 128 ? data[k] : data[k] - 256;
}
""",
  'code4_at': """
static int code4_at(const uint8_t *data, int k) {
  return (data[k / 2] >> 4 * (k % 2) & 15) - 7;
}
""",
  'code3_at': """
static int code3_at(const uint8_t *data, int k) {
  const int byte = 3 * k / 8, bit = 3 * k % 8;
  int found = data[byte] >> bit;
  if (bit > 5) found |= data[byte + 1] << (8 - bit);
  return (found & 7) - 3;
}
""",
  'ternary_at': """
static int ternary_at(const uint8_t *data, int k) {
  int found = data[k / 5];
  for (k %= 5; k > 0; k--) found /= 3;
  return found % 3 - 1;
}
""",
}


def _table(places: Mapping[str, _Place]) -> str:
  (name,) = (n for n in places if n.split('/')[-1] == 'embedding')
  return name


def _places(packed: Packed) -> dict[str, _Place]:
  ends: dict[str, int] = {}
  found = {}
  for leaf in packed.leaves:
    starts = []
    for stream, count, _ in leaf.streams:
      starts.append(ends.get(stream, 0))
      ends[stream] = starts[-1] + count
    found[leaf.name] = _Place(leaf, starts[0], (*starts, 0)[1])
  return found
