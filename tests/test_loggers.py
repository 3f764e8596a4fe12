"""Loggers: what reaches TensorBoard, Weights & Biases and MLflow."""

import sys
import types

import numpy as np
import pytest
from rich import console as rich_console

from experiments.launcher import errors, options, tracking
from lplmtl import loggers

RECORD = {
  'epoch': 3,
  'losses': np.array([[0.5, np.nan], [0.7, np.nan]]),
  'loss_weights': np.array([[1.0, 2.0], [1.0, 4.0]]),
  'validation': {'churn': {'auc': np.array([0.8, 0.9])}},
}
VALUES = {
  'loss/churn': 0.6,
  'loss_weight/churn': 1.0,
  'loss_weight/value': 3.0,
  'validation/churn/auc': 0.85,
}
SUMMARY = {'test/churn/auc': 0.75}


def test_records_become_numbers():
  values = loggers.scalars(RECORD, ('churn', 'value'))
  assert values == pytest.approx(VALUES)  # the NaN loss is left out


def test_follow_calls_every_logger():
  seen = []
  each = [
    loggers.Logger(lambda v, e, i=i: seen.append((i, e)), None)
    for i in range(2)
  ]
  loggers.follow(each, ('churn', 'value'))(RECORD)
  assert seen == [(0, 3), (1, 3)]


def test_summaries_are_flat():
  metrics = {
    'churn': {'auc': {'mean': 0.75, 'std': None}, 'log_loss': float('nan')},
    'value': {'r2': 0.5},
  }
  flat = loggers.summary_of(metrics, 'test')
  assert flat == {'test/churn/auc': 0.75, 'test/value/r2': 0.5}


def test_tensorboard_writes_events(tmp_path):
  pytest.importorskip('tensorboardX')
  logger = loggers.tensorboard(tmp_path / 'events')
  logger.log(VALUES, 3)
  logger.close(SUMMARY)
  (path,) = (tmp_path / 'events').iterdir()
  content = path.read_bytes()
  for name in (*VALUES, *SUMMARY):
    assert name.encode() in content


def test_a_logger_that_never_logs_leaves_nothing(tmp_path):
  pytest.importorskip('tensorboardX')
  loggers.tensorboard(tmp_path / 'events').close({})
  assert not (tmp_path / 'events').exists()


class _Recorder:
  """Stands for the client of a service: records every call."""

  def __init__(self):
    self.calls = []
    self.info = types.SimpleNamespace(run_id='7')
    self.summary = {}

  def __getattr__(self, name):
    def call(*args, **kwargs):
      self.calls.append((name, args, kwargs))
      return self

    return call


def test_wandb_calls(monkeypatch):
  client = _Recorder()
  monkeypatch.setitem(sys.modules, 'wandb', client)
  logger = loggers.wandb({'seed': 1}, project='p')
  logger.log(VALUES, 3)
  logger.close(SUMMARY)
  assert client.calls == [
    ('init', (), {'config': {'seed': 1}, 'project': 'p'}),
    ('log', ({'epoch': 3, **VALUES},), {}),
    ('finish', (), {'exit_code': 0}),
  ]
  assert client.summary == SUMMARY


def test_mlflow_calls(monkeypatch):
  client = _Recorder()
  monkeypatch.setitem(sys.modules, 'mlflow', client)
  logger = loggers.mlflow({'seed': 1}, run_name='r')
  logger.log(VALUES, 3)
  logger.close({})
  assert client.calls == [
    ('start_run', (), {'run_name': 'r'}),
    ('log_params', ({'seed': '1'},), {}),
    ('log_metrics', (VALUES,), {'step': 3, 'run_id': '7'}),
    ('log_metrics', ({},), {'run_id': '7'}),
    ('end_run', ('KILLED',), {}),
  ]


@pytest.mark.parametrize('name', ['tensorboard', 'wandb', 'mlflow'])
def test_a_missing_package_names_its_extra(monkeypatch, name, tmp_path):
  package = 'tensorboardX' if name == 'tensorboard' else name
  monkeypatch.setitem(sys.modules, package, None)
  config = options.Config(log_to=(name,), out_dir=str(tmp_path / 'run'))
  with (
    pytest.raises(errors.InputError, match=rf'lplmtl\[{name}\]') as caught,
    tracking.track(config, ('churn',), rich_console.Console()),
  ):
    pass
  assert '\n' not in str(caught.value)


def test_a_service_that_fails_does_not_end_the_run(capsys):
  closed = []

  def fail(values, epoch):
    raise ConnectionError('no\nroute')

  logger = loggers.Logger(fail, closed.append)
  fine = loggers.Logger(lambda values, epoch: None, closed.append)
  tracker = tracking.Tracker(
    {'wandb': logger, 'mlflow': fine}, ('churn', 'value'),
    rich_console.Console(),
  )  # fmt: skip
  tracker.epoch(RECORD)
  tracker.epoch(RECORD)
  tracker.finish({'test': {'churn': {'auc': {'mean': 0.75}}}})
  tracker.close()
  assert closed == [SUMMARY]
  assert capsys.readouterr().out.count('wandb') == 1


def test_unknown_services_are_refused():
  with pytest.raises(errors.InputError, match='log_to'):
    options.Config(log_to=('excel',))


def test_what_is_undefined_is_left_out_of_a_summary():
  metrics = {'churn': {'auc': {'mean': None}, 'log_loss': np.nan, 'r2': 0.5}}
  assert loggers.summary_of(metrics, 'test') == {'test/churn/r2': 0.5}
