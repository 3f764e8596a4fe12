"""experiments.scaling: its model of a step, and what it measures."""

import json

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

pytest.importorskip('pyarrow')

import lplmtl
from experiments import scaling
from experiments.benchmark import (
  scaled,
  scaled_model,
  scaled_worker,
  streamed_rows,
)
from experiments.benchmark.scaled_model import Line, Network
from lplmtl import balancing, sparse
from lplmtl.training import sharding, steps
from tests import launching


def test_a_line_through_what_was_measured():
  found = scaled_model.fit_line({100: 0.003, 300: 0.005, 1000: 0.012})
  np.testing.assert_allclose(found, (0.002, 1e-5))
  assert found.seconds(200) == pytest.approx(0.004)
  through_zero = scaled_model.fit_line({100: 0.001, 1000: 0.012})
  assert through_zero.fixed == 0 and 1e-5 < through_zero.slope < 1.2e-5
  with pytest.raises(ValueError, match='two sizes or more; found .100.'):
    scaled_model.fit_line({100: 0.003})


def test_between_what_was_measured():
  found = {800: 8.0, 8: 1.0, 80: 2.0}
  times = [scaled_model.between(found, n) for n in (4, 80, 440, 1600)]
  np.testing.assert_allclose(times, (1, 2, 5, 16))


def exchanged(model, optimizer, batch, devices):
  """The bytes of each sum over devices in a step, by the traced program."""
  method = model, model.tasks, optimizer, balancing.uncertainty()
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(
    lambda key, x: steps.init_state(key, *method, x), key, batch.features
  )
  mesh = AbstractMesh((devices,), ('data',), axis_types=(AxisType.Auto,))
  spec = P()
  if isinstance(optimizer, sparse.Lazy):
    parts = sharding.parts_of(
      model, optimizer, state.params, batch.features, mesh
    )
    method = (*method[:2], optimizer.with_parts(parts), method[3])
    spec = sharding.specs(state, state.params, parts, lead=0)
  step = jax.shard_map(
    steps.make_train_step(*method, axis_name='data'), mesh=mesh,
    in_specs=(spec, P('data')), out_specs=(spec, P()), check_vma=False,
  )  # fmt: skip
  found = []

  def collect(program):
    for equation in program.eqns:
      if equation.primitive.name.startswith('psum'):
        found.append(sum(4 * x.aval.size for x in equation.invars))
      for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
          inner = getattr(part, 'jaxpr', part)
          if hasattr(inner, 'eqns'):
            collect(inner)

  collect(jax.make_jaxpr(step)(state, batch).jaxpr)
  return state.params, found


@pytest.mark.parametrize('is_sharded', [False, True])
def test_a_step_exchanges_what_is_predicted(is_sharded):
  """On 64 devices, which need not exist: nothing runs."""
  devices, rows, columns, width = 64, 16, 2, 4
  model = lplmtl.SharedBottom(
    streamed_rows.TODO,
    lplmtl.TabularEncoder((1024,) * columns, width, multiple_of=devices),
    bottom=lplmtl.MLP((4,)), tower=lplmtl.MLP(()),
  )  # fmt: skip
  count, shape = devices * rows, jax.ShapeDtypeStruct
  batch = lplmtl.Batch(
    {
      'categories': shape((count, columns), np.int32),
      'numeric': shape((count, 1), np.float32),
    },
    {task.name: shape((count,), np.float32) for task in model.tasks},
  )
  optimizer = optax.adam(1e-3)
  if is_sharded:
    optimizer = sparse.lazy(optimizer, sharded=True)
  params, found = exchanged(model, optimizer, batch, devices)
  numbers = sum(x.size for x in jax.tree.leaves(params))
  # Beside them, how many labels each task has, and its loss.
  expected = (numbers + 2 + 2) * scaled_model.FLOAT
  if is_sharded:
    expected -= params['encoder']['embedding'].size * scaled_model.FLOAT
    expected += scaled_model.table_bytes(count, columns, width)
  assert sum(found) == expected and len(found) == 2 + is_sharded


def test_exchanges():
  """A ring for large vectors, a tree for small ones, nothing on one host."""
  network = Network('slow', bandwidth=1e9, latency=1e-5, devices=4)
  assert [network.ends(n) for n in (1, 4, 5, 32)] == [1, 1, 2, 8]
  assert network.all_reduce(1e9, 1) == 0
  assert network.all_reduce(8e9, 8) == pytest.approx(14 * (1e-5 + 1))
  assert network.all_reduce(0, 512) == pytest.approx(18e-5)


def test_a_predicted_step():
  network = Network('slow', bandwidth=1e9, latency=0.0, devices=8)
  step = scaled_model.predict(network, 16, 10, Line(0.01, 1e-4), 100, 1e6)
  assert step.sent == 1e6 and step.exchange == pytest.approx(1e-3)
  assert step.seconds == pytest.approx(0.002 + 0.001)
  assert step.rows_per_second == pytest.approx(16 * 100 / 0.003)
  assert step.rows_of_a_host == pytest.approx(8 * 100 / 0.003)
  # The parameter, two moments and the gradient of 6 numbers for each look-up.
  assert scaled_model.table_bytes(10, 3, 6) == 10 * 3 * 6 * 4 * 4
  assert scaled_model.largest_table(2 * 12 * 16 * 1000, 16) == 1000


@pytest.mark.slow
def test_a_run(tmp_path, monkeypatch, capsys):
  """Processes but one are not started; see tests/test_hosts.py for these."""

  def run(asked, count):
    config = {
      **asked.worker, 'batch_sizes': [8, 16, 32], 'messages': [4096, 65536],
    }  # fmt: skip
    found = json.loads(json.dumps(scaled_worker.measure(config)))
    return found if count == 1 else {**found, 'steps': {'32': 1.0}}

  monkeypatch.setattr(scaled, '_run', run)
  out = tmp_path / 'scaling.json'
  asked = scaled.Asked(
    (1, 2), (32,), {'model': 'MMoE', 'width': 4, 'steps': 2, 'turns': 2},
    10_000, 64, (100,), 4, 16, 16e9, out,
  )  # fmt: skip
  scaled.measure(asked)
  printed = capsys.readouterr().out
  assert 'A step here, ms' in printed and 'TPU v5e' in printed
  measured = json.loads(out.read_text())['measured']
  assert all(rate > 0 for rate in measured['reading'].values())
  alone, two = measured['checked']
  assert alone['exchange'] == 0 < alone['compute']
  assert two['step'] == 1.0 and two['exchange'] > 0 and two['compute'] > 0


@pytest.mark.parametrize(
  'arguments, complaint',
  [
    (('--processes=1',), '--processes must name more than one'),
    (('--batch_sizes=1022',), '--batch_sizes=1022 must be a multiple of 4'),
    (('--processes=x',), '--processes'),
  ],
)
def test_mistakes(arguments, complaint, capsys):
  assert launching.launch(scaling.main, *arguments) == 1
  assert complaint in capsys.readouterr().err
