"""Writes the golden model of the current format: `python -m tests.golden.write`.

Run it once, when `checkpoint.FORMAT` has been raised, and commit the folder.
A folder that stands is never written again: it shows that a model of an older
release can still be read.
"""

import json
import pathlib
import shutil
import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import lplmtl
from lplmtl import checkpoint, losses, metrics, tables, tasks

FOLDER = pathlib.Path(__file__).parent
CATEGORIES = {'colour': ['red', 'blue', 'red', 'green', 'blue', 'red']}
NUMBERS = {
  'age': [17.0, 35.0, 61.0, 28.0, 44.0, 70.0],
  'gain': [0.0, 0.0, 5000.0, 12.0, 0.0, 99999.0],
}
# Rows to predict; one value of a category was never seen in training.
ROWS = {
  'colour': ['blue', 'violet', 'green'],
  'age': [30.0, 16.0, 80.0],
  'gain': [100.0, 0.0, 3e4],
}
EXTRA = {'note': 'golden', 'numbers': [1, 2.5, None], 'flags': {'seeds': 2}}
NUM_SEEDS = 2


def encoder_tables():
  """Tables with a category column, a plain number and a skewed one."""
  return tables.fit(CATEGORIES, NUMBERS, log=('gain',), num_bins=3)


def golden_model():
  """A model that names a class, function or dtype of every kind."""
  encoder = encoder_tables()
  return lplmtl.SPLE(
    tasks=(
      tasks.binary('click'),
      tasks.multiclass('rating', 3),
      lplmtl.Task(  # as `tasks.regression` was at formats 1 and 2
        'spent', losses.squared_error, metric_fns={'r2': metrics.r2}
      ),
    ),
    encoder=lplmtl.CrossNetwork(
      lplmtl.TabularEncoder(
        encoder.num_categories, embed_dim=2, num_ordered=encoder.num_ordered
      ),
      rank=2,
      num_layers=1,
    ),
    levels=(
      lplmtl.MLP((4, 3), activation=jax.nn.mish, dropout_rate=0.25),
      nn.Sequential([nn.Dense(4, use_bias=False), nn.LayerNorm(), nn.gelu]),
    ),
    num_specific=1,
    num_shared=2,
    num_top=2,
    tower=(
      lplmtl.MLP((3,), activation=nn.tanh, dtype='float32'),
      lplmtl.MLP(()),
      lplmtl.MLP((2,), activation=jax.nn.silu, dtype=jnp.float32),
    ),
    gate_body=lplmtl.MLP((2,)),
  )


def predictions(model, params, encoder):
  """`{task: [S, N, K] nested lists}` of the rows above."""
  features = encoder.encode(ROWS)
  found = jax.jit(jax.vmap(lambda p: model.apply({'params': p}, features)[0]))(
    params
  )
  return {name: np.asarray(values).tolist() for name, values in found.items()}


def main():
  """Writes `format<N>/` and `format<N>.json`, its predictions."""
  folder = FOLDER / f'format{checkpoint.FORMAT}'
  if folder.exists():
    raise SystemExit(f'{folder} stands already, and is never written again')
  model, encoder = golden_model(), encoder_tables()
  shapes = jax.eval_shape(model.init, jax.random.key(0), encoder.encode(ROWS))[
    'params'
  ]
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: rng.normal(size=(NUM_SEEDS, *x.shape)).astype(x.dtype) / 2, shapes
  )
  with tempfile.TemporaryDirectory() as elsewhere:  # Orbax notes its path
    new = pathlib.Path(elsewhere) / folder.name
    checkpoint.save(
      new, model, params, encoder, num_seeds=NUM_SEEDS, extra=EXTRA
    )
    shutil.move(new, folder)
  expected = json.dumps(predictions(model, params, encoder), indent=1)
  folder.with_suffix('.json').write_text(expected + '\n')


if __name__ == '__main__':
  main()
