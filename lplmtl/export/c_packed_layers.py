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
    """Returns the expression of a scale."""
    read = _READ_SCALE[self.leaf.scale_bits]
    at = _plus(self.scale_start, index)
    return f'{read}(scales{self.leaf.scale_bits}, {at})'


def _plus(start: int, index: str) -> str:
  if index == '0':
    return str(start)
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
  return '\n'.join(
    [
      'static void run(const uint16_t *ids, float *x,',
      f'                {name}_prediction *found) {{',
      *arrays,
      '  int h;',
      *layers.lines,
      '}',
      '',
    ]
  )


class _Layers:
  """Collects the lines of a model, layer by layer.

  Attributes:
    lines: of code.
    arrays: `{name: size}`, beside `x`, the encoded row.
  """

  def __init__(self, packed: Packed, num_numbers: int):
    self.lines: list[str] = []
    self.arrays: dict[str, int] = {}
    self._params = packing.unpack(packed)
    self._places = _places(packed)
    self._size = self._embed(num_numbers)
    self._cross()
    self._trunk = 'x'
    for i in range(len(self._params.get('bottom', {}))):
      self._trunk = self._dense(f'bottom/layer_{i}', self._trunk, relu=True)

  def tower(self, task: str, target: str) -> None:
    """Adds the layers of a task, which write to `target`."""
    x, path = self._trunk, f'tower_{task}'
    for i in range(len(self._params[path].get('body', {}))):
      x = self._dense(f'{path}/body/layer_{i}', x, relu=True)
    self._dense(f'{path}/head', x, target=target)

  def _embed(self, num_numbers: int) -> int:
    """Adds the embeddings of a row; returns its size D."""
    table = self._places[_table(self._places)]
    width, columns = table.leaf.shape[1], len(table.leaf.sizes)
    column, row = 'h', 'ids[h]'
    if width > 1:
      column, row = f'h / {width}', f'{width} * ids[h / {width}] + h % {width}'
    size = width * columns
    if size:
      self.lines += [
        f'  for (h = 0; h < {size}; h++)',
        f'    x[h] = (float){table.code(row)} *',
        f'           {table.scale(column)};',
      ]
    else:
      self.lines.append('  (void)ids;')
    return size + num_numbers

  def _cross(self) -> None:
    """Adds layers that multiply the row by a function of itself, in place."""
    encoder = self._params['encoder']
    num_layers = len(encoder) // 2 if 'encoder' in encoder else 0
    first = 'x'
    if num_layers > 1:
      first = self._array(self._size)
      self.lines.append(
        f'  for (h = 0; h < {self._size}; h++) {first}[h] = x[h];'
      )
    for i in range(num_layers):
      down = self._dense(f'encoder/down_{i}', 'x')
      up = self._value(f'encoder/up_{i}', down)
      self.lines += [
        f'  for (h = 0; h < {self._size}; h++)',
        f'    x[h] = {first}[h] * ({up}) +',
        '           x[h];',
      ]

  def _array(self, size: int) -> str:
    name = f'x{len(self.arrays) + 1}'
    self.arrays[name] = size
    return name

  def _dense(
    self, path: str, x: str, *, relu: bool = False, target: str = ''
  ) -> str:
    """Adds a layer; returns the array of its outputs."""
    width = self._places[f'{path}/kernel'].leaf.shape[1]
    target = target or self._array(width)
    value = self._value(path, x)
    lines = [
      f'  for (h = 0; h < {width}; h++){" {" * relu}',
      f'    {target}[h] = {value};',
    ]
    if relu:
      lines += [f'    if (!({target}[h] > 0)) {target}[h] = 0;', '  }']
    self.lines += lines
    return target

  def _value(self, path: str, x: str) -> str:
    """Returns the expression of output h of a layer."""
    kernel = self._places[f'{path}/kernel']
    bias = self._places.get(f'{path}/bias')
    inputs, width = kernel.leaf.shape
    first = _plus(kernel.start, 'h')
    value = f'dot{kernel.leaf.bits}({x}, {inputs}, {first}, {width})'
    if kernel.leaf.scale_bits:
      per_output = kernel.leaf.scale_shape[-1:] == (width,) and width > 1
      value += f' * {kernel.scale("h" if per_output else "0")}'
    if not bias:
      return value
    if not bias.leaf.scale_bits:
      return f'{value} +\n        {bias.code("h")}'
    is_each = bool(bias.leaf.scale_shape) and bias.leaf.scale_shape[-1] > 1
    scale = bias.scale('h' if is_each else '0')
    return f'{value} +\n        (float){bias.code("h")} * {scale}'


HELPERS = {
  # Not a call of `float32_at`: on a Cortex-M4 that takes 20 to 40 bytes more.
  'single_at': c_helpers.FLOAT32.format(
    head='single_at(const uint8_t *data, int k)', step='  data += 4 * k;\n'
  ),
  'half_at': """
/* A float16 has the bits of a float that is 2^112 times smaller. */
static float half_at(const uint8_t *data, int k) {
  union {
    uint32_t bits;
    float number;
  } found;
  const uint32_t half = data[2 * k] | (uint32_t)data[2 * k + 1] << 8;
  found.bits = half >> 15 << 31 | (half & 0x7fff) << 13;
  return found.number * 5.19229686e33f;
}
""",
  'scale8_at': """
/* A scale is the upper half of a float16, and has the bits of a float that is
   2^112 times smaller. */
static float scale8_at(const uint8_t *data, int k) {
  union {
    uint32_t bits;
    float number;
  } found;
  found.bits = (uint32_t)data[k] << 20;
  return found.number * 5.19229686e33f;
}
""",
  'code8_at': """
static int code8_at(const uint8_t *data, int k) { return (int8_t)data[k]; }
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
} | {
  f'dot{bits}': f"""
/* A sum of products with weights, of which the first is number k. */
static float dot{bits}(const float *x, int count, int k, int step) {{
  float sum = 0;
  for (; count > 0; count--, k += step)
    sum += *x++ * (float){read}(weights{bits}, k);
  return sum;
}}
"""
  for bits, read in _READ.items()
}
# Two codes a byte: less work than by `code4_at`.
HELPERS['dot4'] = """
/* A sum of products with weights, of which the first is number k. */
static float dot4(const float *x, int count, int k, int step) {
  const uint8_t *codes = weights4 + k / 2;
  int shift = 4 * (k & 1);
  float sum = 0;
  for (; count > 0; count--) {
    sum += *x++ * (float)((*codes >> shift & 15) - 7);
    codes += (step + shift / 4) / 2;
    if (step & 1) shift ^= 4; /* the other half of a byte */
  }
  return sum;
}
"""


def helpers(packed: Packed) -> dict[str, str]:
  """Returns the functions that `run` may call; later ones call earlier ones.

  Args:
    packed: whose scales are read.
  """
  scales = packed.sections.get('scales8')
  if scales is None or scales.min() < 8:  # some are subnormal as float16
    return HELPERS
  return HELPERS | {'scale8_at': _SCALE8}


_SCALE8 = """
/* A scale is the upper half of a float16, whose exponent counts from -15. */
static float scale8_at(const uint8_t *data, int k) {
  union {
    uint32_t bits;
    float number;
  } found;
  found.bits = (uint32_t)(data[k] + (127 - 15) * 8) << 20;
  return found.number;
}
"""


def width(packed: Packed) -> int:
  """Returns the width of the embeddings."""
  places = _places(packed)
  return places[_table(places)].leaf.shape[1]


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
