"""A contestant: a plain, careful PyTorch twin of three of our architectures.

Same sizes, same encoder, same loss. Tensors stay resident, there is no
DataLoader, Adam is fused, and experts and gates that read the same input are
one Linear. Needs the extra `bench`, and imports no JAX.
"""

import time

START = time.perf_counter()  # before the imports, which are timed too

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from experiments.benchmark import protocol
from experiments.benchmark.protocol import Config

LEARNING_RATE = 1e-3  # the library's, too
TABLE_ROWS = 1024  # scored at a time: a whole table would not fit a cache
Tensor = Any  # torch.Tensor; types are checked without the extra, too


class Encoder(nn.Module):
  """One embedding table for all category columns, numbers appended."""

  def __init__(self, num_categories: Sequence[int], embed_dim: int):
    super().__init__()
    sizes = torch.tensor([0, *num_categories[:-1]])
    self.offsets = torch.cumsum(sizes, 0)
    self.table = nn.Embedding(sum(num_categories), embed_dim)

  def forward(self, categories: Tensor, numeric: Tensor) -> Tensor:
    embedded = self.table(categories + self.offsets)
    return torch.cat([embedded.flatten(1), numeric], dim=1)


class Fused(nn.Module):
  """Experts and gates that read the same input, as one Linear.

  The gates therefore have biases, which ours do not; they cost nothing.
  """

  def __init__(
    self, width: int, num_experts: int, hidden: int, gates: list[int]
  ):
    super().__init__()
    self.num_experts, self.hidden, self.gates = num_experts, hidden, gates
    self.linear = nn.Linear(width, num_experts * hidden + sum(gates))

  def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    # Not slices: the gradient of a split is one concatenation, that of slices
    # a sum of padded arrays.
    outputs, *gates = torch.split(
      self.linear(x), [self.num_experts * self.hidden, *self.gates], dim=1
    )
    outputs = functional.relu(outputs)
    shape = (len(x), self.num_experts, self.hidden)
    return outputs.view(shape), [torch.softmax(g, dim=1) for g in gates]


def mix(weights: Tensor, outputs: Tensor) -> Tensor:
  """Mixes `[B, E]` and `[B, E, H]` to `[B, H]`, as is faster for the dtype."""
  if outputs.dtype == torch.float32:
    return (weights.unsqueeze(2) * outputs).sum(1)
  return torch.bmm(weights.unsqueeze(1).to(outputs.dtype), outputs).squeeze(1)


def tower(width: int, hidden: int) -> nn.Module:
  """The tower of one task."""
  return nn.Sequential(
    nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1)
  )


class SharedBottom(nn.Module):
  """One trunk and a tower per task."""

  def __init__(self, width: int, tasks: int, bottom: int, tower_width: int):
    super().__init__()
    self.bottom = nn.Linear(width, bottom)
    self.towers = nn.ModuleList(
      [tower(bottom, tower_width) for _ in range(tasks)]
    )

  def forward(self, x: Tensor) -> list[Tensor]:
    hidden = functional.relu(self.bottom(x))
    return [head(hidden) for head in self.towers]


class MMoE(nn.Module):
  """All experts and gates as one Linear."""

  def __init__(
    self, width: int, tasks: int, experts: int, hidden: int, tower_width: int
  ):
    super().__init__()
    self.level = Fused(width, experts, hidden, [experts] * tasks)
    self.towers = nn.ModuleList(
      [tower(hidden, tower_width) for _ in range(tasks)]
    )

  def forward(self, x: Tensor) -> list[Tensor]:
    outputs, gates = self.level(x)
    return [h(mix(g, outputs)) for h, g in zip(self.towers, gates, strict=True)]


class PLE(nn.Module):
  """Two levels: the first as one Linear, the second with one per input."""

  def __init__(
    self,
    width: int,
    tasks: int,
    specific: int,
    shared: int,
    hidden: int,
    tower_width: int,
  ):
    super().__init__()
    self.tasks, self.specific = tasks, specific
    pool, everyone = specific + shared, tasks * specific + shared
    self.first = Fused(width, everyone, hidden, [pool] * tasks + [everyone])
    self.upper = nn.ModuleList(
      [Fused(hidden, specific, hidden, [pool]) for _ in range(tasks)]
    )
    self.shared = nn.Linear(hidden, shared * hidden)
    self.hidden = hidden
    self.towers = nn.ModuleList(
      [tower(hidden, tower_width) for _ in range(tasks)]
    )

  def forward(self, x: Tensor) -> list[Tensor]:
    outputs, gates = self.first(x)
    sizes = [self.specific] * self.tasks
    *specific, common = torch.split(
      outputs, [*sizes, outputs.shape[1] - sum(sizes)], dim=1
    )
    inputs = [
      mix(gate, torch.cat([experts, common], dim=1))
      for gate, experts in zip(gates[:-1], specific, strict=True)
    ]
    shared = functional.relu(self.shared(mix(gates[-1], outputs)))
    shared = shared.view(len(x), -1, self.hidden)
    predictions = []
    for level, head, g in zip(self.upper, self.towers, inputs, strict=True):
      experts, (weights,) = level(g)
      predictions.append(
        head(mix(weights, torch.cat([experts, shared], dim=1)))
      )
    return predictions


class Engine:
  """A model, its data and its optimiser; see `protocol.Engine`."""

  def __init__(self, config: Config, rows: protocol.Rows):
    torch.set_num_threads(config['threads'])
    torch.manual_seed(0)
    self.batch = config['batch_size']
    self.dtype = torch.bfloat16 if config['dtype'] == 'bfloat16' else None
    self.categories = torch.from_numpy(rows.features['categories']).long()
    self.numeric = torch.from_numpy(rows.features['numeric'])
    self.labels = torch.from_numpy(rows.labels).float()
    tasks = self.labels.shape[1]
    self.encoder = Encoder(rows.num_categories, config['embed_dim'])
    width = len(rows.num_categories) * config['embed_dim']
    width += self.numeric.shape[1]
    hidden, top = config['expert_width'], config['tower_width']
    self.model: nn.Module
    if config['architecture'] == 'mmoe':
      self.model = MMoE(width, tasks, config['num_experts'], hidden, top)
    elif config['architecture'] == 'ple':
      specific, shared = config['num_specific'], config['num_shared']
      self.model = PLE(width, tasks, specific, shared, hidden, top)
    else:
      self.model = SharedBottom(width, tasks, config['bottom_width'], top)
    parameters = [*self.encoder.parameters(), *self.model.parameters()]
    self.optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)

  def _logits(self, rows: Tensor | slice) -> Tensor:
    enabled = self.dtype is not None
    with torch.autocast(
      'cpu', dtype=self.dtype or torch.bfloat16, enabled=enabled
    ):
      x = self.encoder(self.categories[rows], self.numeric[rows])
      return torch.cat(self.model(x), dim=1)

  def train(self, calls: int) -> int:
    """Trains `calls` epochs; returns rows."""
    seen = 0
    for _ in range(calls):
      order = torch.randperm(len(self.labels))
      for i in range(len(order) // self.batch):
        rows = order[i * self.batch : (i + 1) * self.batch]
        loss = functional.binary_cross_entropy_with_logits(
          self._logits(rows).float(), self.labels[rows]
        )
        loss = loss * self.labels.shape[1]  # the sum over tasks
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        seen += self.batch
    return seen

  def score(self, calls: int) -> int:
    """Scores the whole table, in chunks, `calls` times; returns rows."""
    with torch.inference_mode():
      for _ in range(calls):
        for start in range(0, len(self.labels), TABLE_ROWS):
          self._logits(slice(start, start + TABLE_ROWS)).float().numpy()
    return len(self.labels) * calls

  def latency(self, calls: int) -> int:
    """Scores single rows; returns how many."""
    with torch.inference_mode():
      for i in range(calls):
        self._logits(slice(i, i + 1)).float().numpy()
    return calls

  def facts(self) -> dict[str, Any]:
    """Returns nothing: FLOPs are counted for ours, which has the same size."""
    return {}

  def square(self, calls: int) -> int:
    """Multiplies large matrices; returns floating-point operations."""
    m, k, n = protocol.SQUARE
    dtype = self.dtype or torch.float32
    a, b = torch.ones(m, k, dtype=dtype), torch.ones(k, n, dtype=dtype)
    out = torch.empty(m, n, dtype=dtype)
    with torch.inference_mode():
      for _ in range(calls):
        torch.mm(a, b, out=out)
    return 2 * m * k * n * calls


def main(config: Config) -> None:
  """Serves requests, or trains once, as the configuration asks."""
  protocol.pin(config['threads'])
  imported = time.perf_counter()
  rows = protocol.read_rows(config['data'])
  read = time.perf_counter()
  engine = Engine(config, rows)
  if not config['epochs']:
    protocol.serve(engine)
    return
  built = time.perf_counter()
  engine.train(config['epochs'])
  protocol.report(
    {
      'import': imported - START,
      'data': read - imported,
      'init': built - read,
      'compile': 0.0,
      'train': time.perf_counter() - built,
    }
  )


if __name__ == '__main__':
  main(json.loads(sys.argv[1]))
