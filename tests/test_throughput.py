"""The benchmark runs, and refuses what it cannot do."""

import io
import json
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from experiments.benchmark import plan, protocol
from experiments.launcher import options
from experiments.launcher.errors import InputError

ROOT = pathlib.Path(__file__).parent.parent


SMALL = (
  '--architectures=shared_bottom --batch_sizes=64 --num_rows=2000 '
  '--bottom_width=8 --alternations=2'
)
RATES = f'{SMALL} --balancers=equal,mgda --num_tasks=3'
PROCESSES = f'{SMALL} --epochs=1'
MISTAKES = {
  '--batch_sizes=0': '--batch_sizes .* found 0',
  '--batch_sizes=9999 --num_rows=200': '--batch_sizes .* 120 training rows',
  '--measures=train --epochs=1': '--epochs .* --measures',
  '--architectures=single_task --balancers=mgda --num_rows=200 '
  '--batch_sizes=32 --measures=train': 'SingleTask shares no parameters',
  'more': "'more'",
}
LAUNCH = """
import sys
from experiments import throughput
from experiments.benchmark import turns
from tests import launching
turns.CALLS = dict.fromkeys(turns.CALLS, 1)  # not about a second of each
for arguments in sys.argv[1:]:
  code = launching.launch(throughput.main, *arguments.split())
  for stream in (sys.stdout, sys.stderr):
    print('exit code', code, file=stream, flush=True)
"""


class Call(NamedTuple):
  """What the command wrote, its exit code, and the figures that it kept."""

  stdout: str
  stderr: str
  code: str
  figures: pathlib.Path


@pytest.fixture(scope='module')
def called(tmp_path_factory):
  """All calls, by arguments; its flags need their own process, one for all."""
  folder = tmp_path_factory.mktemp('figures')
  outs = {RATES: folder / 'rates.json', PROCESSES: folder / 'processes.json'}
  calls = [f'{call} --out={out}' for call, out in outs.items()]
  process = subprocess.run(
    [sys.executable, '-c', LAUNCH, *calls, *MISTAKES],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  parts = [
    re.findall(r'(.*?)exit code (.*?)\n', written, re.DOTALL)
    for written in (process.stdout, process.stderr)
  ]
  return {
    call: Call(stdout, stderr, code, outs.get(call))
    for call, (stdout, _), (stderr, code) in zip(
      [*outs, *MISTAKES], *parts, strict=True
    )
  }


@pytest.mark.slow
def test_rates_of_a_small_model(called):
  found = called[RATES]
  assert found.code == '0', found.stderr
  assert 'shared_bottom, batch 64' in found.stdout
  assert 'lplmtl float32 mgda is ready' in found.stdout
  assert 'turn 2 of 2' in found.stdout
  figures = json.loads(found.figures.read_text())
  (measured,) = figures['measured']
  assert measured['facts']['flops_per_example'] > 0
  for name in ('lplmtl float32 equal', 'lplmtl float32 mgda'):
    rates = measured['rates'][name]
    assert set(rates) == {'train', 'score', 'latency', 'square', 'products'}
    for values in rates.values():
      assert len(values) == 2 and all(v > 0 for v in values)
  assert figures['config']['bottom_width'] == 8 and figures['versions']['jax']


@pytest.mark.slow
def test_whole_processes_of_a_small_model(called):
  found = called[PROCESSES]
  assert found.code == '0', found.stderr
  assert 'x our warm' in found.stdout
  (measured,) = json.loads(found.figures.read_text())['measured']
  assert len(measured['processes']) == 2
  for spent in measured['processes'].values():
    assert set(spent) == {
      'import', 'data', 'init', 'compile', 'train', 'total',
    }  # fmt: skip
    assert all(len(turns) == 2 and min(turns) > 0 for turns in spent.values())


def test_the_twin_has_our_size():
  """As many parameters, except the biases of its gates."""
  torch = pytest.importorskip('torch')
  import jax
  import numpy as np

  import lplmtl
  from experiments.benchmark import protocol, twin
  from lplmtl import tasks
  from lplmtl.compression import count_parameters

  todo = (tasks.binary('a'), tasks.binary('b'))
  config = {
    'threads': 1, 'batch_size': 4, 'dtype': 'float32', 'embed_dim': 2, 'expert_width': 6, 'tower_width': 4, 'num_experts': 3,
    'num_specific': 2, 'num_shared': 1, 'bottom_width': 7,
  }  # fmt: skip
  features = {
    'categories': np.zeros((8, 2), np.int32),
    'numeric': np.ones((8, 3), np.float32),
  }
  encoder = lplmtl.TabularEncoder((3, 5), 2)
  expert, tower = lplmtl.MLP((6,)), lplmtl.MLP((4,))
  models = {
    'shared_bottom': (
      lplmtl.SharedBottom(todo, encoder, lplmtl.MLP((7,)), tower), 0,
    ),
    'mmoe': (lplmtl.MMoE(todo, encoder, expert, 3, tower), 2 * 3),
    'ple': (
      lplmtl.PLE(todo, encoder, (expert, expert), 2, 1, tower), 2 * 3 + 5 + 2 * 3,
    ),
  }  # fmt: skip
  for name, (model, gate_biases) in models.items():
    rows = protocol.Rows(features, np.zeros((8, 2), np.float32), [3, 5])
    engine = twin.Engine({**config, 'architecture': name}, rows)
    parts = [*engine.encoder.parameters(), *engine.model.parameters()]
    theirs = sum(p.numel() for p in parts)
    ours = jax.eval_shape(model.init, jax.random.key(0), features)
    assert theirs - gate_biases == count_parameters(ours)
    assert engine.train(1) == 8 and engine.score(2) == 16
    assert all(torch.isfinite(p).all() for p in parts)


def test_the_twin_needs_no_jax():
  """Its imports are timed, and JAX would compete for its cores."""
  code = (
    'import experiments.benchmark.protocol, sys; '
    "assert not {'jax', 'flax', 'lplmtl'} & sys.modules.keys()"
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


PLAN = {
  'data': options.Config(dataset='sample'), 'architectures': ('mmoe',),
  'batch_sizes': (256,), 'precisions': ('float32',), 'balancers': ('equal',),
  'rival': 'none', 'measures': ('train',), 'alternations': 2, 'epochs': 0,
  'num_tasks': 2, 'machine': {'threads': 1, 'num_seeds': 1, 'devices': 1},
  'sizes': {},
}  # fmt: skip


@pytest.mark.parametrize(
  'fields, complaint',
  [
    (
      {'architectures': ('resnet',)},
      '--architectures .* adatt, cgc, .* resnet',
    ),
    ({'balancers': ('magic',)}, '--balancers .* aligned_mtl, .* magic'),
    ({'measures': ('speed',)}, '--measures .* latency, .* speed'),
    ({'measures': ('products',)}, 'add train'),
    ({'measures': ()}, '--measures .* none'),
    ({'precisions': ('int8',)}, '--precisions .* float32, bfloat16'),
    ({'out': pathlib.Path('/no/such/folder/x')}, '--out=/no/such/folder'),
    ({'machine': {'threads': 9999}}, '--threads=9999'),
    ({'rival': 'pytorch', 'architectures': ('sple',)}, 'pytorch|mmoe, ple'),
  ],
)
def test_plans_that_cannot_be_measured(fields, complaint):
  plan.Plan(**PLAN)
  with pytest.raises(InputError, match=complaint):
    plan.Plan(**{**PLAN, **fields})


@pytest.mark.slow  # a process, and no matter of versions
@pytest.mark.parametrize('arguments', MISTAKES)
def test_mistakes(arguments, called):
  _, error, code, _ = called[arguments]
  assert code == '1'
  assert re.search(f'error: .*{MISTAKES[arguments]}', error), error
  assert 'Traceback' not in error


def test_first_calls_are_not_timed(monkeypatch, capsys):
  """They compile, whatever is measured; an engine is told how many calls."""
  calls = []

  class Counting:
    facts = staticmethod(dict)

    def __getattr__(self, what):
      return lambda count: calls.append((what, count)) or count

  monkeypatch.setattr('sys.stdin', io.StringIO('train 3\nproducts 2\n' * 2))
  protocol.serve(Counting())
  assert calls[:3] == [('latency', 1), ('score', 1), ('train', 1)]
  once = [('train', 3), ('products', 2)]
  assert calls[3:] == [('train', 3), ('products', 1), ('products', 2), *once]
  answers = capsys.readouterr().out.splitlines()[1:]
  assert [json.loads(answer)[0] for answer in answers] == [3, 2, 3, 2]
