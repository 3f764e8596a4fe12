"""All forms of a model of each architecture, and of networks of any size."""

import pathlib
import tempfile

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as some

import lplmtl
from lplmtl import export, tasks
from lplmtl.compression import quantization
from lplmtl.export import c99, codes
from tests import contracts, sweep_exports
from tests.test_export_c99 import COMPILERS, check


@pytest.mark.slow
@pytest.mark.parametrize('name', sweep_exports.ARCHITECTURES)
def test_every_architecture(name, tmp_path):
  """One of 16 models each, which differ between architectures.

  The last architectures, of levels, have the fewest tasks: each is compiled.
  """
  after = len(sweep_exports.ARCHITECTURES) - 1
  after -= sweep_exports.ARCHITECTURES.index(name)
  one = sweep_exports.case(name, after % sweep_exports.NUM_CASES)
  made = sweep_exports.forms(one)
  sweep_exports.check(one, made)
  if COMPILERS:
    sweep_exports.compile_c(made, tmp_path, sweep_exports.ways()[:1])


def test_cases_are_of_every_kind():
  """Of each architecture; chains are of binary tasks alone."""
  for name in sweep_exports.ARCHITECTURES:
    every = [sweep_exports.case(name, i) for i in range(16)]
    shapes = {(one.num_tasks, one.has_crosses, one.has_bins) for one in every}
    assert len(shapes) == 16
    assert {one.bits for one in every} == {4, 8}
    assert {one.first_kind for one in every} == set(range(6))
    model, _ = sweep_exports.model_of(every[-1])
    assert len(model.tasks) == 5


@pytest.mark.slow
@pytest.mark.skipif(not COMPILERS, reason='needs a C compiler')
@hypothesis.settings(max_examples=6, derandomize=True, deadline=None)
@hypothesis.given(
  inputs=some.integers(1, 9),
  widths=some.lists(some.integers(1, 9), min_size=1, max_size=3),
  activation=some.sampled_from(
    [jax.nn.relu, jax.nn.gelu, jax.nn.mish, jax.nn.tanh, jax.nn.elu]
  ),
  num_experts=some.integers(2, 4),
  bits=some.sampled_from([8, 4, 3]),
  seed=some.integers(0, 2**16),
)
def test_bits_of_networks_of_any_size(
  inputs, widths, activation, num_experts, bits, seed
):
  """Products of any number of inputs, with floats and with codes."""
  x = np.zeros((1, inputs), np.float32)
  expert = lplmtl.MLP(tuple(widths), activation=activation)
  given = tasks.binary('yes'), tasks.multiclass('one', 3)
  model = lplmtl.MMoE(given, expert=expert, num_experts=num_experts)
  quantized = quantization.Quantized(model, quantization.Scheme(bits=bits))
  params = contracts.random_params(quantized, x, seed)
  with (
    pytest.MonkeyPatch.context() as patch,
    tempfile.TemporaryDirectory() as at,
  ):
    patch.setattr(codes, 'FEW', 1)
    frozen = quantization.freeze(quantized, params)
    floats = export.trace(model, quantization.thaw(frozen), x)
    for program in floats, export.with_codes(floats, frozen):
      c99.write(pathlib.Path(at), program)
      assert 'difference 0.0e+00' in check(pathlib.Path(at), '-O0')
