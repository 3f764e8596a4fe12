"""Categories in few bytes: lists of texts and of whole numbers, in C99.

A text is stored as how many bytes it shares with the one before it (front
coding), and the others, of which each above those that occur stands for two
(byte pair encoding, Gage 1994). A whole number is stored as its difference to
the one before it. Such lists are read from the start, which suits short ones.
"""

import itertools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lplmtl.export import c_text

MOST = 255  # entries of a list: its first byte counts them
_LONG = 15  # what four bits hold
_LEAST = (
  3  # occurrences of a pair that outweigh the two bytes of its definition
)

Entries = Sequence[tuple[bytes | int, int]]


class Lists(NamedTuple):
  """Lists, one after the other.

  Attributes:
    content: their bytes.
    starts: where each begins; equal ones are stored once.
    first: the first byte that stands for a pair.
    pairs: what these bytes stand for, `[(byte, byte)]`.
    id_bytes: those of the id behind each entry; 0 if ids count from 1.
  """

  content: bytes
  starts: tuple[int, ...]
  first: int
  pairs: tuple[tuple[int, int], ...]
  id_bytes: int


def pack(columns: Sequence[Entries]) -> Lists:
  """Returns lists in few bytes.

  Args:
    columns: at most MOST `(text or whole number, id)` each, in order: texts in
      UTF-8 without a zero byte, numbers of 32 bits.
  """
  columns = [_counted(entries) for entries in columns]
  ids = [[i for _, i in entries] for entries in columns]
  are_counted = all(one == list(range(1, len(one) + 1)) for one in ids)
  id_bytes = 0 if are_counted else 1 if max(map(max, ids)) < 2**8 else 2
  shared = [_shared([text for text, _ in entries]) for entries in columns]
  rests = [
    text[size:]
    for entries, sizes in zip(columns, shared, strict=True)
    for (text, _), size in zip(entries, sizes, strict=True)
    if isinstance(text, bytes)
  ]
  first, pairs, packed = _by_pairs(rests)
  content, starts = b'', []
  place: dict[bytes, int] = {}
  rest = iter(packed)
  for entries, sizes in zip(columns, shared, strict=True):
    parts, last = [bytes([len(entries)])], 0
    for (known, i), size in zip(entries, sizes, strict=True):
      if isinstance(known, bytes):
        parts.append(_entry(size, next(rest)))
      else:
        parts.append(steps([known - last]))
        last = known
      parts.append(i.to_bytes(id_bytes, 'little') if id_bytes else b'')
    one = b''.join(parts)
    if one not in place:
      place[one] = len(content)
      content += one
    starts.append(place[one])
  return Lists(content, tuple(starts), first, pairs, id_bytes)


def _counted(entries: Entries) -> Entries:
  """Returns entries in an order in which their ids are 1, 2, ..., or as given.

  Numbers are in the order of their texts, in which 10 comes before 9.
  """
  found = sorted(entries, key=operator.itemgetter(1))
  ids = [i for _, i in found]
  return found if ids == list(range(1, len(ids) + 1)) else entries


def steps(differences: Sequence[int]) -> bytes:
  """Returns differences of numbers of 32 bits, small ones in a byte.

  Seven bits a byte, the lowest first, with the sign in the lowest of all; the
  highest bit of a byte tells that another one follows.
  """
  found = bytearray()
  for difference in differences:
    signed = (difference + 2**31) % 2**32 - 2**31
    left = 2 * signed if signed >= 0 else -2 * signed - 1
    while left > 127:
      found.append(128 + left % 128)
      left //= 128
    found.append(left)
  return bytes(found)


def _shared(texts: Sequence[bytes | int]) -> list[int]:
  """Returns how many bytes each text shares with the one before, at most 15."""
  sizes = []
  for before, text in zip([b'', *texts], texts, strict=False):
    size = 0
    if isinstance(text, bytes) and isinstance(before, bytes):
      pairs = zip(before[:_LONG], text, strict=False)
      size = sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], pairs))
    sizes.append(size)
  return sizes


def _entry(shared: int, rest: bytes) -> bytes:
  """Returns both sizes, of four bits each or more, and the rest."""
  head = [shared << 4 | min(len(rest), _LONG)]
  if len(rest) >= _LONG:
    more, last = divmod(len(rest) - _LONG, 255)
    head += [*[255] * more, last]
  return bytes(head) + rest


def _by_pairs(
  texts: Sequence[bytes],
) -> tuple[int, tuple[tuple[int, int], ...], list[bytes]]:
  """Returns the first byte for a pair, the pairs, and texts that use them."""
  joined = b'\0'.join(texts)
  first = max(joined, default=0) + 1
  pairs: list[tuple[int, int]] = []
  for symbol in range(first, 256):
    letters = np.frombuffer(joined, np.uint8).astype(np.int64)
    found = 256 * letters[:-1] + letters[1:]
    found = found[(letters[:-1] > 0) & (letters[1:] > 0)]
    if not len(found):
      break
    counts = np.bincount(found)
    best = int(np.argmax(counts))
    if counts[best] < _LEAST:
      break
    left, right = divmod(best, 256)
    pairs.append((left, right))
    joined = joined.replace(bytes([left, right]), bytes([symbol]))
  return first, tuple(pairs), joined.split(b'\0')


def depth(lists: Lists) -> int:
  """Returns how many bytes may wait while one is spelled out, at least 1."""
  needed = dict.fromkeys(range(lists.first), 0)
  for symbol, (left, right) in enumerate(lists.pairs, lists.first):
    needed[symbol] = max(needed[left] + 1, needed[right])
  return max(*needed.values(), 1)


def helpers(lists: Lists) -> dict[str, str]:
  """Returns C functions that find ids; later ones call earlier ones."""
  get_id = {
    0: '',
    1: '    id = *at++;\n',
    2: '    id = at[0] | at[1] << 8;\n    at += 2;\n',
  }[lists.id_bytes]
  pairs = [f'{{{left}, {right}}}' for left, right in lists.pairs or [(0, 0)]]
  text = _ID_AMONG_TEXTS.format(
    first=lists.first,
    depth=depth(lists),
    pairs=c_text.array('uint8_t', 'pairs', pairs, '[2]').strip(),
    get_id=get_id,
  )
  number = _ID_AMONG_INTEGERS.format(get_id=get_id)
  return {
    'id_among_texts': text,
    'id_among_integers': number,
  }


_ID_AMONG_TEXTS = """
/* The id of a text in a list that lplmtl.export.c_vocabulary packed. */
static int32_t id_among_texts(const char *text, const uint8_t *at,
                              int32_t unseen) {{
{pairs}
  uint8_t waiting[{depth}];
  const int count = *at++;
  int n, i, same = 0; /* bytes of the text and the entry, from the start */
  text = canonical(text ? text : "nan", &n);
  for (i = 1; i <= count; i++) {{
    const int shared = *at >> 4; /* with the entry before */
    int32_t id = i;
    int size = *at++ & 15, depth = 0, is_same = shared <= same;
    if (size == 15) do size += *at;
      while (*at++ == 255);
    if (is_same) {{
      const uint8_t *next = at;
      same = shared;
      while (is_same && (depth > 0 || next < at + size)) {{
        int c = depth > 0 ? waiting[--depth] : *next++;
        for (; c >= {first}; c = pairs[c - {first}][0])
          waiting[depth++] = pairs[c - {first}][1];
        is_same = same < n && (unsigned char)text[same] == c;
        same += is_same;
      }}
    }}
    at += size;
{get_id}    if (is_same && same == n) return id;
  }}
  return unseen;
}}
"""
_ID_AMONG_INTEGERS = """
/* The id of a whole number in a list that lplmtl.export.c_vocabulary packed. */
static int32_t id_among_integers(int32_t value, const uint8_t *at,
                                 int32_t unseen) {{
  const int count = *at++;
  uint32_t known = 0;
  int i;
  for (i = 1; i <= count; i++) {{
    int32_t id = i;
    known += (uint32_t)next_step(&at);
{get_id}    if (known == (uint32_t)value) return id;
  }}
  return unseen;
}}
"""
