"""The generated tables, and the models that learn a chain of labels."""

import datetime

import jax
import numpy as np
import optax
import pytest

import lplmtl
from lplmtl import balancing, data, metrics, tasks


def test_a_chain_of_labels():
  rows = data.clicks(5000)
  click, buy = rows.labels['click'], rows.labels['buy']
  assert rows.features.shape == (5000, 8) and rows.features.dtype == np.float32
  assert (buy <= click).all()
  assert 0.2 < click.mean() < 0.4 and 0.08 < buy.mean() < 0.18
  again = data.clicks(5000)
  np.testing.assert_array_equal(again.features, rows.features)
  np.testing.assert_array_equal(again.labels['buy'], buy)
  assert not np.array_equal(data.clicks(5000, 1).features, rows.features)
  with pytest.raises(ValueError, match='at least 1 row'):
    data.clicks(0)


def test_customers_are_raw_rows():
  table = data.customers(2000)
  targets = 'churn', 'upgrade', 'segment', 'value'
  assert len(table) == 12 + len(targets)
  missing = {
    k: np.mean([x is None or x != x for x in v]) for k, v in table.items()
  }
  for name, share in missing.items():
    expected = (
      0.2
      if name in targets
      else {
        'rating': 0.4,
        'income': 0.15,
        'last_visit': 0.12,
        'device': 0.1,
      }.get(name, 0)
    )
    assert abs(share - expected) < 0.1, name
  again, other = data.customers(2000), data.customers(2000, 1)
  for name, column in table.items():
    np.testing.assert_array_equal(again[name], column)
    assert column.shape == (2000,)
  assert list(other['plan']) != list(table['plan'])
  found = {x for x in table['segment'] if x is not None}
  assert found == {'loyal', 'bargain', 'new', 'business'}
  for text in table['signup']:
    datetime.date.fromisoformat(text)
  with pytest.raises(ValueError, match='at least 1 row'):
    data.customers(0)


@pytest.mark.parametrize('name', ['ESMM', 'AITM'])
def test_labels_that_form_no_chain(name):
  """The tasks are given in the wrong order."""
  rows = data.clicks(200)
  reversed_tasks = (tasks.binary('buy'), tasks.binary('click'))
  model = getattr(lplmtl, name)(reversed_tasks)

  def fit(rows):
    return lplmtl.fit(
      jax.random.key(0), model, optax.sgd(0.1), balancing.equal(),
      rows, batch_size=50, num_epochs=1,
    )  # fmt: skip

  wrong = (rows.labels['click'] > rows.labels['buy']).sum()
  with pytest.raises(ValueError, match=f'{wrong} of the 200 rows'):
    fit(rows)
  # Rows with an unknown label do not contradict the order.
  known = rows.labels['click'] == rows.labels['buy']
  model.check_labels(rows._replace(where={'buy': known}), 'data')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ESMM', 'AITM'])
def test_chains_learn(name):
  todo = (tasks.binary('click'), tasks.binary('buy'))
  bottom = lplmtl.MLP((16,))
  model = getattr(lplmtl, name)(todo, bottom=bottom, tower=lplmtl.MLP((8,)))
  result = lplmtl.fit(
    jax.random.key(0), model, optax.adam(1e-2), balancing.equal(),
    data.clicks(4000), batch_size=100, num_epochs=5,
  )  # fmt: skip
  unseen = data.clicks(4000, 1)
  logits = lplmtl.make_predictor(model, result.params)(unseen.features)
  chances = {n: 1 / (1 + np.exp(-x[:, 0])) for n, x in logits.items()}
  for task in ('click', 'buy'):
    auc = metrics.roc_auc(
      logits[task], unseen.labels[task], np.ones(4000, bool)
    )
    assert auc > 0.7, task
  # ESMM's product guarantees it; AITM's penalty encourages it.
  rising = (chances['buy'] > chances['click'] + 1e-6).mean()
  assert rising == 0 if name == 'ESMM' else rising < 0.05
