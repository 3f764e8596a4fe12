"""Texts of a category as one or two bytes. NumPy only.

A device that compares hashes instead of texts stores no vocabulary. The seed of
a column is chosen so that the hashes tell all values of its vocabulary apart.
What they cannot tell is a value of the vocabulary from one that training never
saw: of n hashes of 8 bits, an unseen text has one with probability n / 256, of
16 bits n / 65,536, and then counts as that known value.

In C, with the text's bytes in UTF-8:

    uint32_t h = 0x811c9dc5;
    for (int i = 0; i < n; i++) h = (h ^ (uint8_t)text[i]) * 0x01000193;
    h = (h ^ seed * 0x9e3779b9) * 0x85ebca6b;
    h = (h ^ h >> 15) * 0xc2b2ae35;
    hash = h >> 24;  // of 16 bits: h >> 16
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

NUM_SEEDS = 256  # a seed is a byte
# FNV-1a over the bytes, then a finaliser like MurmurHash3's around the seed, so
# that a text is read once however many columns look it up.
_OFFSET, _PRIME = 0x811C9DC5, 0x01000193
_MIX = (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35)


def of_texts(texts: Sequence[str]) -> np.ndarray:
  """Returns `[V]` uint32, before a seed is mixed in.

  Example:
    >>> hex(of_texts(['a'])[0])
    '0xe40c292c'
  """
  found = np.empty(len(texts), np.uint32)
  for i, text in enumerate(texts):
    hashed = _OFFSET
    for byte in text.encode('utf-8', 'surrogatepass'):
      hashed = ((hashed ^ byte) * _PRIME) & 0xFFFFFFFF
    found[i] = hashed
  return found


def seeded(hashes: np.ndarray, seed: Any, bits: int) -> np.ndarray:
  """Mixes seeds into hashes; arrays broadcast.

  Args:
    hashes: uint32 `[..., V]`, from `of_texts`.
    seed: below NUM_SEEDS, an int or an array of them.
    bits: 8 or 16, of each result.

  Returns:
    uint8 or uint16.
  """
  mask = np.asarray(seed, np.uint64) * np.uint64(_MIX[0]) & np.uint64(
    0xFFFFFFFF
  )
  mixed = (hashes ^ mask.astype(np.uint32)) * np.uint32(_MIX[1])
  mixed = (mixed ^ mixed >> np.uint32(15)) * np.uint32(_MIX[2])
  return (mixed >> np.uint32(32 - bits)).astype(f'<u{bits // 8}')


def find_seed(hashes: np.ndarray, ids: np.ndarray, bits: int) -> int | None:
  """Returns the first seed under which texts with different ids differ.

  Args:
    hashes: `[V]` uint32, from `of_texts`.
    ids: `[V]` int.
    bits: 8 or 16.

  Returns:
    A seed below NUM_SEEDS, or None if there is none.
  """
  seeds = np.arange(NUM_SEEDS)[:, None]
  found = seeded(hashes[None], seeds, bits)
  order = np.argsort(found, axis=1, kind='stable')
  found = np.take_along_axis(found, order, axis=1)
  clash = (found[:, 1:] == found[:, :-1]) & (np.diff(ids[order], axis=1) != 0)
  good = np.flatnonzero(~clash.any(axis=1))
  return int(good[0]) if len(good) else None
