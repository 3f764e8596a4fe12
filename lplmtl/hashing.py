"""Two hashes of a text, for columns with more values than a vocabulary holds.

NumPy only. A text's two numbers depend on nothing but its bytes: not on the
machine, the release or the other rows.
"""

from collections.abc import Sequence

import numpy as np

# Longer texts cost no more time or memory than this; texts that agree so far
# share both buckets. Values of that length are prose, not categories.
NUM_BYTES = 256
MOST_BUCKETS = 2**31 - 1  # their numbers are int32
# FNV-1a over the bytes, then the finaliser of MurmurHash3, after which all bits
# are mixed: its two halves serve as two independent hashes. (Two checksums of
# one polynomial with different start values would collide together.)
_OFFSET, _PRIME = 0xCBF29CE484222325, 0x100000001B3
_MIX = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_BLOCK = 1 << 14  # texts at a time: 4 MB of bytes


def buckets(texts: Sequence[str], num_buckets: int) -> np.ndarray:
  """Returns two buckets for each text, from two independent hashes.

  The sum of two embeddings tells values apart that share one bucket; two of V
  values share both with probability 1 / num_buckets^2. In C:

      uint64_t h = 0xcbf29ce484222325;
      for (int i = 0; i < n && i < 256; i++)  // n bytes of UTF-8
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3;
      h = (h ^ h >> 33) * 0xff51afd7ed558ccd;
      h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
      h ^= h >> 33;
      bucket[0] = (h >> 32) % num_buckets;
      bucket[1] = (h & 0xffffffff) % num_buckets;

  Args:
    texts: V canonical texts (see `columns.canonical`), of which the first
      NUM_BYTES bytes of UTF-8 are read.
    num_buckets: K, from 1 to MOST_BUCKETS.

  Returns:
    `[V, 2]` int32, from 0 to K - 1.

  Raises:
    ValueError: K is out of range.

  References:
    Svenstrup et al. 2017, "Hash Embeddings for Efficient Word Representations".

  Example:
    >>> buckets(['Oslo', 'Rome'], 4096).tolist()
    [[3781, 4061], [3233, 3326]]
  """
  if not 1 <= num_buckets <= MOST_BUCKETS:
    raise ValueError(
      f'num_buckets must be from 1 to {MOST_BUCKETS:,}, found {num_buckets:,}'
    )
  found = np.empty((len(texts), 2), np.int32)
  for start in range(0, len(texts), _BLOCK):
    hashes = _hashes(texts[start : start + _BLOCK])
    halves = np.stack([hashes >> 32, hashes & 0xFFFFFFFF], axis=1)
    found[start : start + _BLOCK] = halves % num_buckets
  return found


def _hashes(texts: Sequence[str]) -> np.ndarray:
  """Returns `[V]` uint64."""
  # A character has at least one byte, so that the rest need not be encoded.
  # Texts from undecodable bytes may hold lone surrogates.
  encoded = [
    text[:NUM_BYTES].encode('utf-8', 'surrogatepass')[:NUM_BYTES]
    for text in texts
  ]
  lengths = np.array([len(text) for text in encoded])
  longest = max(int(lengths.max()), 1)
  padded = b''.join(text.ljust(longest, b'\0') for text in encoded)
  rows = np.frombuffer(padded, np.uint8).reshape(-1, longest)
  hashes = np.full(len(texts), _OFFSET, np.uint64)
  for i, byte in enumerate(np.ascontiguousarray(rows.T)):
    mixed = (hashes ^ byte) * np.uint64(_PRIME)  # arrays wrap without a warning
    hashes = np.where(i < lengths, mixed, hashes)
  for factor in _MIX:
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(factor)
  return hashes ^ (hashes >> np.uint64(33))
