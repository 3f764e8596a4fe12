"""A plain, careful PyTorch twin of three architectures, to be measured against.

Same sizes, same encoder, same loss; tensors resident, no DataLoader, fused
Adam; experts and gates that read the same input are one Linear. Needs the extra
`bench`; used by experiments/throughput.py alone.
"""

import time

START = time.perf_counter()  # before the imports that are to be timed

import contextlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from experiments.benchmark import worker  # noqa: E402

ARCHITECTURES = ('shared_bottom', 'mmoe', 'ple')
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
  """`groups` of experts and gates that read one input, as one Linear.

  Gates have biases that a linear gate would not have; they cost nothing.
  """

  def __init__(
    self, width: int, num_experts: int, hidden: int, gates: list[int]
  ):
    super().__init__()
    self.num_experts, self.hidden, self.gates = num_experts, hidden, gates
    self.linear = nn.Linear(width, num_experts * hidden + sum(gates))

  def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    # A split, whose gradient is a concatenation; that of slices would be as
    # many padded arrays and their sum.
    outputs, *gates = torch.split(
      self.linear(x), [self.num_experts * self.hidden, *self.gates], dim=1
    )
    outputs = functional.relu(outputs)
    shape = (len(x), self.num_experts, self.hidden)
    return outputs.view(shape), [torch.softmax(g, dim=1) for g in gates]


def mix(weights: Tensor, outputs: Tensor) -> Tensor:
  """`[B, E]` and `[B, E, H]` to `[B, H]`, in the way that is faster."""
  if outputs.dtype == torch.float32:
    return (weights.unsqueeze(2) * outputs).sum(1)
  return torch.bmm(weights.unsqueeze(1).to(outputs.dtype), outputs).squeeze(1)


def tower(width: int, hidden: int) -> nn.Module:
  """The tower of one task."""
  return nn.Sequential(
    nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1)
  )


class SharedBottom(nn.Module):
  """One trunk."""

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
  """Two levels; the first one as one Linear, above it one for each input."""

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
    self.own = nn.ModuleList(
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
    *owns, common = torch.split(
      outputs, [*sizes, outputs.shape[1] - sum(sizes)], dim=1
    )
    inputs = [
      mix(gate, torch.cat([own, common], dim=1))
      for gate, own in zip(gates[:-1], owns, strict=True)
    ]
    shared = functional.relu(self.shared(mix(gates[-1], outputs)))
    shared = shared.view(len(x), -1, self.hidden)
    predictions = []
    for level, head, g in zip(self.own, self.towers, inputs, strict=True):
      own, (weights,) = level(g)
      predictions.append(head(mix(weights, torch.cat([own, shared], dim=1))))
    return predictions


class Twin:
  """A model, its data and its optimiser; what throughput.py times."""

  def __init__(self, config: dict[str, Any], features: Any, labels: Any):
    torch.set_num_threads(config['threads'])
    torch.manual_seed(0)
    self.batch = config['batch_size']
    self.dtype = torch.bfloat16 if config['dtype'] == 'bfloat16' else None
    self.categories = torch.from_numpy(features['categories']).long()
    self.numeric = torch.from_numpy(features['numeric'])
    self.labels = torch.from_numpy(labels).float()
    tasks = self.labels.shape[1]
    self.encoder = Encoder(config['num_categories'], config['embed_dim'])
    width = len(config['num_categories']) * config['embed_dim']
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
    self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)

  def _logits(self, rows: Tensor | slice) -> Tensor:
    enabled = self.dtype is not None
    with torch.autocast(
      'cpu', dtype=self.dtype or torch.bfloat16, enabled=enabled
    ):
      x = self.encoder(self.categories[rows], self.numeric[rows])
      return torch.cat(self.model(x), dim=1)

  def train(self, calls: int) -> int:
    """So many epochs; returns the rows seen."""
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
    """The whole table, in chunks, so many times; returns the rows seen."""
    with torch.inference_mode():
      for _ in range(calls):
        for start in range(0, len(self.labels), 1024):
          self._logits(slice(start, start + 1024)).float().numpy()
    return len(self.labels) * calls

  def latency(self, calls: int) -> int:
    """So many calls with one row each."""
    with torch.inference_mode():
      for i in range(calls):
        self._logits(slice(i, i + 1)).float().numpy()
    return calls

  def facts(self) -> dict[str, Any]:
    """Nothing: the count of the same model is taken for both."""
    return {}

  def square(self, calls: int) -> int:
    """Large matrix products; returns their floating-point operations."""
    m, k, n = worker.SQUARE
    dtype = self.dtype or torch.float32
    a, b = torch.ones(m, k, dtype=dtype), torch.ones(k, n, dtype=dtype)
    out = torch.empty(m, n, dtype=dtype)
    with torch.inference_mode():
      for _ in range(calls):
        torch.mm(a, b, out=out)
    return 2 * m * k * n * calls


def main(config: dict[str, Any]) -> None:
  """As throughput_worker.main."""
  worker.pin(config['threads'])
  imported = time.perf_counter()
  features, labels, config['num_categories'] = worker.load(config['data'])
  read = time.perf_counter()
  twin = Twin(config, features, labels)
  if not config['epochs']:
    worker.serve(twin)
    return
  built = time.perf_counter()
  twin.train(config['epochs'])
  spent = {
    'import': imported - START,
    'data': read - imported,
    'init': built - read,
    'compile': 0.0,
    'train': time.perf_counter() - built,
  }
  print(json.dumps(spent), flush=True)


if __name__ == '__main__':
  with contextlib.suppress(KeyboardInterrupt):  # it goes to all processes
    main(json.loads(sys.argv[1]))
