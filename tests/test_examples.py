"""PLE on images and sentences, with dense and per-row tasks side by side."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, losses, tasks


def _train(model, data, num_epochs):
  result = lplmtl.fit(
    jax.random.key(0), model, optax.adam(2e-2), balancing.equal(), data,
    batch_size=32, num_epochs=num_epochs,
  )  # fmt: skip
  first, last = (result.history[i]['losses'][0] for i in (0, -1))
  predict = lplmtl.make_predictor(model, result.params)
  return first, last, predict


def _images(num_rows, seed):
  """Squares and diagonals on noise: where, how bright, and which of the two."""
  rng = np.random.default_rng(seed)
  size = 8
  image = rng.normal(0, 0.2, (num_rows, size, size, 1))
  mask = np.zeros((num_rows, size, size), np.int32)
  kind = rng.integers(0, 2, num_rows)
  for i, (row, column) in enumerate(rng.integers(1, size - 3, (num_rows, 2))):
    shape = np.ones((3, 3), int) if kind[i] else np.eye(3, dtype=int)
    mask[i, row : row + 3, column : column + 3] = shape
  image[..., 0] += mask
  smooth = mask + 0.5 * np.roll(mask, 1, axis=2)
  labels = {'mask': mask, 'light': smooth.astype(np.float32), 'kind': kind}
  return lplmtl.Batch(image.astype(np.float32), labels)


@pytest.mark.slow
def test_two_dense_tasks_and_a_label_on_images():
  """PLE with convolutional experts on a convolutional encoder."""
  conv = lambda width: nn.Sequential([nn.Conv(width, (3, 3)), nn.relu])  # noqa: E731
  pool = lambda x: x.max(axis=(1, 2))  # noqa: E731
  todo = (
    lplmtl.Task('mask', losses.binary_cross_entropy),
    lplmtl.Task('light', losses.squared_error),
    tasks.binary('kind'),
  )
  model = lplmtl.PLE(
    todo,
    encoder=conv(4),
    levels=(conv(4),),
    num_specific=1,
    num_shared=1,
    tower=(
      conv(4),
      conv(4),
      nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, pool]),
    ),
  )
  first, last, predict = _train(model, _images(256, 0), num_epochs=10)
  assert (last < 0.6 * first).all()
  unseen = _images(64, 1)
  outputs = predict(unseen.features)
  assert outputs['mask'].shape == (64, 8, 8, 1)
  assert outputs['kind'].shape == (64, 1)
  right = (outputs['mask'][..., 0] > 0) == unseen.labels['mask']
  assert right.mean() > 0.97
  assert ((outputs['kind'][:, 0] > 0) == unseen.labels['kind']).mean() > 0.85


def _sentences(num_rows, seed):
  """Words 1 to 9 are good and 10 to 18 bad; 19 ("not") negates the next."""
  rng = np.random.default_rng(seed)
  words = rng.integers(1, 20, (num_rows, 6))
  after_not = np.roll(words, 1, axis=1) == 19
  after_not[:, 0] = False
  good = (words < 10) ^ after_not
  tag = np.where(words == 19, 2, good)
  topic = (tag == 1).sum(axis=1) > (tag == 0).sum(axis=1)
  labels = {'tag': tag.astype(np.int32), 'topic': topic.astype(np.int32)}
  return lplmtl.Batch(words.astype(np.int32), labels)


@pytest.mark.slow
def test_a_tag_per_word_and_a_label_of_the_sentence():
  """PLE on word embeddings; its experts see a word and its neighbours."""
  window = nn.Sequential([nn.Conv(16, (3,)), nn.relu])
  mean = lambda x: x.mean(axis=1)  # noqa: E731
  todo = (
    lplmtl.Task('tag', losses.softmax_cross_entropy, num_outputs=3),
    tasks.binary('topic'),
  )
  model = lplmtl.PLE(
    todo,
    encoder=nn.Embed(20, 16),
    levels=(window,),
    num_specific=1,
    num_shared=1,
    tower=(lplmtl.MLP((16,)), nn.Sequential([nn.relu, mean])),
  )
  first, last, predict = _train(model, _sentences(512, 0), num_epochs=10)
  assert (last < 0.6 * first).all()
  unseen = _sentences(128, 1)
  outputs = predict(unseen.features)
  assert outputs['tag'].shape == (128, 6, 3)
  assert (outputs['tag'].argmax(axis=-1) == unseen.labels['tag']).mean() > 0.9
  assert ((outputs['topic'][:, 0] > 0) == unseen.labels['topic']).mean() > 0.8
