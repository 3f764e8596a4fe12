"""What a step takes on many devices, from parts that were measured on few.

A step computes the gradient of its rows on each device and adds them up over
all devices; other cores read the rows of the next ones meanwhile:

    step = compute(rows) + exchange(bytes)
    compute(b) = fixed + b / rate
    exchange(n) = latency + n / bandwidth

The exchange does not hide behind the computation: `fit` adds up one vector at
the end of the pull-backs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

FLOAT = 4  # bytes
# Numbers that are kept for each one of a parameter: itself and Adam's moments.
KEPT = 3


class Line(NamedTuple):
  """Seconds as a straight line: `fixed + size * slope`.

  Attributes:
    fixed: seconds of a call.
    slope: seconds of a unit (a row, a byte).
  """

  fixed: float
  slope: float

  def seconds(self, size: float) -> float:
    """Returns the seconds for a size."""
    return self.fixed + self.slope * size


class Network(NamedTuple):
  """What connects devices.

  Attributes:
    name: for the table.
    bandwidth: bytes per second that an end sends while it receives as many.
    latency: seconds of a message.
    devices: of an end, which add up among themselves in no time.
  """

  name: str
  bandwidth: float
  latency: float
  devices: int

  def ends(self, num_devices: int) -> int:
    """Returns how many ends these devices have."""
    return -(-num_devices // self.devices)

  def all_reduce(self, num_bytes: float, num_ends: int) -> float:
    """Returns the seconds to add up a vector over N ends.

    By a ring, each end sends `2 (N - 1) / N` times the vector, in `2 (N - 1)`
    messages; a small vector goes up and down a tree, of `2 log2(N)` messages. A
    library takes what is faster.
    """
    if num_ends == 1:
      return 0.0
    hops = 2 * (num_ends - 1)
    ring = hops * (self.latency + num_bytes / num_ends / self.bandwidth)
    levels = 2 * int(np.ceil(np.log2(num_ends)))
    tree = levels * (self.latency + num_bytes / self.bandwidth)
    return min(ring, tree)


DEVICES_OF_A_HOST = 8
# Bandwidths as their makers give them, of TPU v5e 1,600 Gb/s a chip each way
# (https://cloud.google.com/tpu/docs/v5e); latencies are assumed.
NETWORKS = (
  Network('Ethernet, 25 Gb/s', 25e9 / 8, 30e-6, DEVICES_OF_A_HOST),
  Network('InfiniBand, 200 Gb/s', 200e9 / 8, 5e-6, DEVICES_OF_A_HOST),
  Network('TPU v5e', 1600e9 / 8, 2e-6, 1),
)


class Step(NamedTuple):
  """A predicted step.

  Attributes:
    network: its name.
    devices: how many.
    speed: of a device, relative to the core that was measured.
    sent: bytes that an end sends.
    exchange: seconds of the exchange.
    seconds: of the step.
    rows_per_second: of all devices.
    rows_of_a_host: that its devices take per second.
  """

  network: str
  devices: int
  speed: int
  sent: float
  exchange: float
  seconds: float
  rows_per_second: float
  rows_of_a_host: float


def predict(
  network: Network,
  num_devices: int,
  speed: int,
  compute: Line,
  num_rows: int,
  num_bytes: float,
) -> Step:
  """Predicts a step on many devices.

  Args:
    network: between their hosts, or between them.
    num_devices: how many.
    speed: of a device, relative to the core that was measured.
    compute: seconds of a step by rows, on that core.
    num_rows: of each device.
    num_bytes: of a gradient.
  """
  ends = network.ends(num_devices)
  exchange = network.all_reduce(num_bytes, ends)
  seconds = compute.seconds(num_rows) / speed + exchange
  of_a_device = num_rows / seconds
  return Step(
    network.name,
    num_devices,
    speed,
    2 * (ends - 1) / ends * num_bytes,
    exchange,
    seconds,
    num_devices * of_a_device,
    DEVICES_OF_A_HOST * of_a_device,
  )


def fit_line(seconds: Mapping[int, float]) -> Line:
  """Fits a line to measured sizes, by least squares of the relative error.

  Args:
    seconds: by size; two sizes or more.

  Raises:
    ValueError: there is one size only.
  """
  if len(seconds) < 2:
    raise ValueError(f'a line needs two sizes or more; found {sorted(seconds)}')
  sizes = np.array(sorted(seconds), float)
  times = np.array([seconds[int(size)] for size in sizes])
  terms = np.stack([np.ones_like(sizes), sizes], axis=1) / times[:, None]
  fixed, slope = np.linalg.lstsq(terms, np.ones_like(sizes), rcond=None)[0]
  if fixed < 0:  # by noise: the line through 0
    rates = sizes / times
    fixed, slope = 0.0, rates.sum() / (rates**2).sum()
  return Line(float(fixed), float(slope))


def between(seconds: Mapping[int, float], size: float) -> float:
  """Returns the seconds for a size, between those that were measured.

  For what is no straight line: Gloo takes .6 ms to add up 64 kB over two
  processes and 3.6 ms for 256 kB, but 4.0 ms for 1 MB.

  Args:
    seconds: by size.
    size: below the smallest one it takes as long as this; above the largest
      one longer by as much as it is larger.
  """
  sizes = sorted(seconds)
  beyond = max(size / sizes[-1], 1.0)
  return beyond * float(np.interp(size, sizes, [seconds[n] for n in sizes]))


def table_bytes(num_rows: int, look_ups: int, width: int) -> int:
  """Returns the bytes that a step exchanges for embeddings in parts.

  Each device holds a part of a table's rows. All get the rows that the batch
  looks up, with Adam's moments, and add up the rows' gradient: `KEPT + 1`
  vectors of all look-ups of all devices.

  Args:
    num_rows: of a step, on all devices.
    look_ups: of a row.
    width: of an embedding.
  """
  return (KEPT + 1) * num_rows * look_ups * width * FLOAT


def largest_table(memory: float, width: int) -> int:
  """Returns how many embeddings fit into devices that hold a part each.

  Half of the memory is left for everything else, and for the copies of a table
  that `fit` makes when an epoch ends.

  Args:
    memory: bytes of all devices.
    width: of an embedding.
  """
  return int(memory / 2 / (KEPT * width * FLOAT))
