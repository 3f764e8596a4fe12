"""experiments.serve: answers over HTTP are those of the model itself."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
import types
import urllib.parse

import jax
import numpy as np
import pytest

import lplmtl
from experiments import serve, serving
from experiments.launcher.errors import InputError
from lplmtl import checkpoint, compression, tables, tabular, tasks
from lplmtl.compression import quantization
from lplmtl.tabular import targets
from tests import contracts
from tests.golden import write as golden
from tests.launching import launch

pytest.importorskip('uvicorn')
pytest.importorskip('starlette')
from experiments.serving import (
  app,
  batching,
  models,
  reloading,
  requests,
  server,
)
from tests import serving_load

NUM_ROWS = 40
LIMITS = app.Limits(max_rows=50, max_bytes=20_000, max_requests=64, timeout=60)
RNG = np.random.default_rng(0)
FRAME = {
  'city': RNG.choice(['Oslo', 'Rome', 'Lima', None], NUM_ROWS).tolist(),
  'street': [f'street {i}' for i in range(NUM_ROWS)],
  'agrees': RNG.choice([True, False, None], NUM_ROWS).tolist(),
  'age': [None, *RNG.integers(18, 90, NUM_ROWS - 1).tolist()],
  'since': [f'20{i % 20:02}-0{i % 9 + 1}-11' for i in range(NUM_ROWS)],
}
ROWS = [
  dict(zip(FRAME, row, strict=True))
  for row in zip(*FRAME.values(), strict=True)
]
SCHEMA = tabular.Schema(
  inputs={
    'id': tabular.Input('identifier'),
    'city': tabular.Input('category'),
    'street': tabular.Input('category'),
    'agrees': tabular.Input('boolean'),
    'age': tabular.Input('number'),
    'since': tabular.Input('date'),
  },
  targets={
    'churn': tabular.Target('binary', ('no', 'yes'), 'yes'),
    'plan': tabular.Target('multiclass', (1, 2, 3)),
    'value': tabular.Target('regression', mean=250.0, std=40.0),
  },
)


def _save(folder, seed):
  """Saves a model of random parameters, as `experiments.tabular` would."""
  encoding = tables.fit(
    {name: FRAME[name] for name in ('city', 'street')},
    {'age': FRAME['age']},
    booleans={'agrees': FRAME['agrees']},
    dates={'since': (FRAME['since'], '')},
    rules=tables.Rules(fill_missing=True, max_vocabulary=8, num_buckets=16),
  )
  encoder = lplmtl.TabularEncoder(
    encoding.num_categories, 2, num_buckets=encoding.num_buckets
  )
  model = lplmtl.SharedBottom(targets.make_tasks(SCHEMA), encoder)
  x = encoding.encode(FRAME)
  seeds = [contracts.random_params(model, x, 2 * seed + i) for i in (0, 1)]
  params = jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
  predictor = tabular.Predictor(SCHEMA, encoding, model, params)
  predictor.save(folder)
  return predictor


@contextlib.contextmanager
def _served(current, limits, reload_every=0.0):
  """Serves in a thread, at a free port; yields the address."""
  with server.bind('127.0.0.1', 0) as listener:
    listener.listen()
    made = server.make(app.make(current, limits, reload_every), limits)
    thread = threading.Thread(target=made.run, args=([listener],))
    thread.start()
    try:
      yield server.address(listener)
    finally:
      made.should_exit = True
      thread.join()


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
  return _save(tmp_path_factory.mktemp('run') / 'model', 0)


@pytest.fixture(scope='module')
def current(predictor, tmp_path_factory):
  folder = tmp_path_factory.mktemp('served') / 'model'
  predictor.save(folder)
  return reloading.Current(folder)


@pytest.fixture(scope='module')
def address(current):
  with _served(current, LIMITS) as found:
    yield found


def _ask(address, path, body=None, method=None):
  """Returns `(status, headers, JSON)`."""
  place = urllib.parse.urlsplit(address)
  connection = http.client.HTTPConnection(place.hostname, place.port)
  with contextlib.closing(connection):
    connection.request(
      method or ('GET' if body is None else 'POST'), path, body
    )
    response = connection.getresponse()
    return response.status, response.headers, json.loads(response.read())


def _body(rows):
  return json.dumps({'rows': rows}).encode()


def test_many_clients_get_the_predictions_of_the_model(
  address, current, predictor, num_compiled
):
  """Whatever is gathered with their rows, and nothing is compiled for it."""
  starts = RNG.integers(0, NUM_ROWS - 3, 300)
  parts = [ROWS[i : i + 1 + i % 3] for i in starts]
  bodies = [_body(part) for part in parts]
  replies = []

  def send():
    replies.extend(serving_load.send(address, bodies, num_clients=60))

  assert num_compiled(send) == 0
  assert {reply.status for reply in replies} == {200}
  found = [json.loads(reply.body) for reply in replies]
  assert {one['version'] for one in found} == {current.served.version}
  # The same bits as all rows at once.
  whole = models.to_rows(current.served.predict(FRAME))
  for i, part, one in zip(starts, parts, found, strict=True):
    assert one['predictions'] == whole[i : i + len(part)]
  expected = predictor.predict(FRAME)
  assert list(whole[0]) == list(expected)
  for name, values in expected.items():
    ours = np.array([row[name] for row in whole])
    if values.dtype.kind == 'f':
      np.testing.assert_allclose(ours, values, rtol=1e-5)
    else:
      assert (ours == values).all()


def test_a_row_has_the_same_bits_at_every_place(current):
  whole = current.served.predict(FRAME)
  for i in range(0, NUM_ROWS, 3):
    for columns, place in (
      ({name: values[i:] for name, values in FRAME.items()}, 0),
      ({name: values[: i + 1] for name, values in FRAME.items()}, -1),
      ({name: [values[i]] for name, values in FRAME.items()}, 0),
    ):
      found = current.served.predict(columns)
      assert all(found[k][place] == whole[k][i] for k in whole)


def test_the_schema_has_an_example_and_its_answer(address):
  status, _, schema = _ask(address, '/schema')
  assert status == 200
  kinds = {one['name']: one['kind'] for one in schema['columns']}
  assert kinds == {
    'city': 'category', 'street': 'category', 'agrees': 'boolean',
    'age': 'number', 'since': 'date',
  }  # fmt: skip
  assert all(one['may_be_null'] for one in schema['columns'])
  (row,) = schema['example']['rows']
  assert row == {one['name']: one['example'] for one in schema['columns']}
  assert row['city'] in FRAME['city'] and row['age'] == np.median(
    [x for x in FRAME['age'] if x]
  )
  answer = _ask(address, '/predict', json.dumps(schema['example']))
  assert answer[2] == schema['answer']


def test_health(address, current):
  status, _, health = _ask(address, '/health')
  assert status == 200 and health['status'] == 'ok'
  assert health['version'] == current.served.version
  assert health['tasks'] == {
    'churn': 'binary', 'plan': 'multiclass', 'value': 'regression',
  }  # fmt: skip
  assert health['num_seeds'] == 2 and not health['problem']


def test_columns_of_the_table_that_are_not_read_are_passed_over(address):
  row = ROWS[0] | {'id': 'a7', 'churn': 'no', 'value': 3}
  one, other = (_ask(address, '/predict', _body([r])) for r in (row, ROWS[0]))
  assert one[0] == 200 and one[2] == other[2]
  assert _ask(address, '/predict', _body([]))[2]['predictions'] == []


def _with(**values):
  return _body([ROWS[1], ROWS[1] | values])


@pytest.mark.parametrize(
  'body, status, message',
  [
    (b'', 400, 'the body must be JSON, such as {"rows": '),
    (b'\xff\xfe\x00', 400, 'must be JSON'),
    (b'[' * 9999, 400, 'must be JSON'),
    (b'{"rows": [{"age": NaN}]}', 400, 'found NaN, which JSON does not have'),
    (b'[3]', 422, 'an object like {"rows": [{"age": 33'),
    (b'{"row": []}', 422, "found the keys ['row']"),
    (b'{"rows": {}}', 422, '"rows" must be a list of objects; found an object'),
    (b'{"rows": [[3]]}', 422, 'row 0 (counted from 0) must be an object'),
    (_with(aeg=3), 422, "row 1 (counted from 0) has a column 'aeg' that"),
    (_body([{'strete': 3}]), 422, "did you mean 'street'?"),
    (_body([{'age': 3, 'since': None, 'agrees': True}]), 422,
     "lacks the columns 'city', 'street': send null where"),
    (_with(age='old'), 422, "column 'age' must hold numbers; found 'old' in row 1"),
    (_with(age=1e30), 422, "column 'age' must lie within 1e+09"),
    (b'{"rows": [%s]}' % _with(age=3)[10:-2].replace(b': 3', b': 1e999'), 422,
     "column 'age' must hold finite numbers; found inf in row 1"),
    (_with(city=['Oslo']), 422, "'city' must hold a text, a number, true, false or null; found a list in row 1"),
    (_with(since='May'), 422, "column 'since' must hold dates like 2026-01-31"),
    (_body(ROWS[:1] * 51), 413, 'a request may have 50 rows, found 51: send'),
    (b' ' * 20_001, 413, 'a body may have 20,000 bytes, found more'),
    (b' ' * 2_000_000, 413, 'a body may have 20,000 bytes, found more'),
  ],
)  # fmt: skip
def test_a_mistake_is_one_line(address, body, status, message):
  found, _, reply = _ask(address, '/predict', body)
  assert found == status and reply.keys() == {'error'}
  assert message in reply['error'] and '\n' not in reply['error']


ODD = (
  None, True, 0, -0.0, 2**64, 10**400, 1e308, 5e-324, '', ' ', 'NaN', 'inf',
  '1_000', '\x00', '\ud800', 'é' * 300, '2020-13-01', '12:30', 'NaT', [], {},
  '9999-12-31T23:59:59.999999+14:00', '0001-01-01T00:00:00+23:59',
)  # fmt: skip


@pytest.mark.parametrize('name', FRAME)
def test_any_value_is_predicted_or_refused(name, current):
  """In one line of modest length, which can be sent."""
  for value in ODD:
    body = _body([ROWS[1] | {name: value}])
    try:
      rows = requests.parse(body, 1)
      requests.check(current.served, rows)
      (found,) = batching.predict_all(current.served, [rows])
    except requests.Refused as refused:
      found = refused
    if isinstance(found, requests.Refused):
      assert found.status == 422 and f"column '{name}' must " in found.text
      assert len(found.text.encode()) < 300 and '\n' not in found.text
    else:
      assert json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
  'method, path, status',
  [('GET', '/', 404), ('GET', '/predict', 405), ('POST', '/predict/', 404)],
)
def test_other_addresses(method, path, status, address):
  found, headers, reply = _ask(address, path, method=method)
  assert found == status and 'POST /predict' in reply['error']
  assert ('Allow' in headers) == (status == 405)


def test_a_bad_row_spoils_no_other_request(current):
  parts = [ROWS[:2], [ROWS[2] | {'age': 'old'}], ROWS[3:4]]
  one, bad, other = batching.predict_all(current.served, parts)
  whole = models.to_rows(current.served.predict(FRAME))
  assert one == whole[:2] and other == whole[3:4]
  assert "found 'old' in row 0" in bad.text


def _halves(address, count, rows):
  """Opens connections that have sent half a request."""
  place = urllib.parse.urlsplit(address)
  body = _body(rows)
  head = b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n'
  opened = []
  for _ in range(count):
    opened.append(socket.create_connection((place.hostname, place.port)))
    opened[-1].sendall(head % len(body) + body[:10])
  while _ask(address, '/health')[2]['requests'] < count:
    time.sleep(0.01)
  return opened, body[10:]


def test_too_many_requests_are_asked_to_come_again(current):
  limits = LIMITS._replace(max_requests=3)
  with _served(current, limits) as address:
    opened, rest = _halves(address, 3, ROWS[:1])
    status, headers, reply = _ask(address, '/predict', _body(ROWS[:1]))
    assert status == 503 and headers['Retry-After'] == '1'
    assert '3 requests are waiting already' in reply['error']
    for one in opened:
      with one:
        one.sendall(rest)
        assert one.recv(9999).startswith(b'HTTP/1.1 200 ')
    assert _ask(address, '/predict', _body(ROWS[:1]))[0] == 200


def test_nothing_is_waited_for_for_ever(current):
  limits = LIMITS._replace(timeout=0.1)
  is_over = threading.Event()
  slow = types.SimpleNamespace(
    needed=frozenset('a'), known=frozenset('a'), version='',
    tables=types.SimpleNamespace(columns=('a',), encode=dict),
    predict_encoded=lambda features: is_over.wait(60) and {'y': np.zeros(1)},
  )  # fmt: skip
  stalled = types.SimpleNamespace(served=slow)
  with _served(stalled, limits) as address:
    place = urllib.parse.urlsplit(address)
    with socket.create_connection((place.hostname, place.port)) as one:
      one.sendall(
        b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n'
      )
      reply = _read(one)
    assert reply.startswith(b'HTTP/1.1 408 ')
    assert b'the body did not arrive within 0.1 s' in reply
    status, headers, reply = _ask(address, '/predict', _body([{'a': 1}]))
    is_over.set()
    assert status == 503 and headers['Retry-After'] == '1'
    assert 'no predictions within 0.1 s' in reply['error']


def test_a_failure_of_the_model_ends_one_request(current, capsys):
  def fail(features):
    raise RuntimeError('out of order')

  served = types.SimpleNamespace(
    needed=current.served.needed, known=current.served.known,
    tables=current.served.tables, predict_encoded=fail, version='',
  )  # fmt: skip
  broken = types.SimpleNamespace(served=served)
  with _served(broken, LIMITS) as address:
    status, _, reply = _ask(address, '/predict', _body(ROWS[:1]))
    assert status == 500 and 'its log says where' in reply['error']
    broken.served = current.served
    assert _ask(address, '/predict', _body(ROWS[:1]))[0] == 200
  assert 'out of order' in capsys.readouterr().err  # with its traceback


def _await(condition):
  began = time.monotonic()
  while not condition():
    assert time.monotonic() - began < 60
    time.sleep(0.01)


def _ask_until(address, is_over):
  """Returns replies to the request of one row, again and again."""
  replies = []
  while not is_over.is_set():
    replies += serving_load.send(address, 8 * [_body(ROWS[:1])], num_clients=4)
  assert {reply.status for reply in replies} == {200}
  return [json.loads(reply.body) for reply in replies]


def test_a_changed_model_is_read_again(tmp_path, capsys):
  """A damaged one is not; the old one stays, and it is said."""
  folder = tmp_path / 'model'
  _save(folder, 1)
  current = reloading.Current(folder)
  with _served(current, LIMITS, reload_every=0.01) as address:
    ask = lambda: _ask(address, '/predict', _body(ROWS[:1]))[2]  # noqa: E731
    health = lambda: _ask(address, '/health')[2]  # noqa: E731
    old = ask()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      is_over = threading.Event()
      replies = pool.submit(_ask_until, address, is_over)
      predictor = _save(folder, 2)
      _await(lambda: health()['version'] != old['version'])
      is_over.set()
    new = ask()
    # Either model answers, and says so.
    assert {reply['version'] for reply in replies.result()} >= {old['version']}
    answers = {one['version']: one for one in (old, new)}
    assert all(answers[one['version']] == one for one in replies.result())
    expected = predictor.predict(FRAME)['value'][0]
    assert new['predictions'][0]['value'] == pytest.approx(expected)
    assert new['predictions'] != old['predictions']
    file = folder / 'meta' / 'metadata'
    file.write_bytes(b'{}' + file.read_bytes()[2:])
    _await(lambda: health()['problem'])
    assert 'is damaged: meta/metadata has changed' in health()['problem']
    assert ask() == new
    _save(folder, 1)
    _await(lambda: not health()['problem'])
    assert ask()['predictions'] == old['predictions']
  lines = capsys.readouterr().err.splitlines()
  assert [line.split()[2] for line in lines] == ['version'] * 3
  assert [line.split()[4] for line in lines] == ['serves', 'stays,', 'serves']


def test_a_model_that_is_replaced_meanwhile_is_refused(current, monkeypatch):
  versions = iter(['a', 'b'])
  monkeypatch.setattr(models, '_version', lambda folder: next(versions))
  with pytest.raises(InputError, match='was replaced while it was read'):
    models.load(current.folder)


def test_a_model_without_a_schema_predicts_by_task():
  """As an exported one: probabilities and numbers, here means of two seeds."""
  served = models.load(golden.FOLDER / 'format2')
  found = served.predict(golden.ROWS)
  logits = json.loads((golden.FOLDER / 'format2.json').read_text())
  logits = {name: np.array(values) for name, values in logits.items()}
  click = (1 / (1 + np.exp(-logits['click']))).mean(0)[:, 0]
  np.testing.assert_allclose(found['click'], click, rtol=1e-4)
  rating = np.exp(logits['rating'])
  rating = (rating / rating.sum(-1, keepdims=True)).mean(0)
  np.testing.assert_allclose(found['rating'], rating, rtol=1e-4)
  spent = logits['spent'].mean(0)[:, 0]
  np.testing.assert_allclose(found['spent'], spent, rtol=1e-4)
  assert served.kinds == {
    'click': 'binary', 'rating': 'multiclass', 'spent': 'regression',
  }  # fmt: skip
  rows = [{'colour': 'blue', 'age': None, 'gain': 1}]
  (refused,) = batching.predict_all(served, [rows])
  assert "column 'age' must not be null" in refused.text
  assert isinstance(models.to_rows(found)[0]['rating'], list)


def test_a_quantised_model_computes_with_rounded_parameters(tmp_path):
  """One seed, without an axis of seeds, as `compression.compress` saves it."""
  encoding = golden.encoder_tables()
  encoder = lplmtl.TabularEncoder(encoding.num_categories, 2)
  todo = (tasks.binary('click'), tasks.multilabel('tags', 2))
  model = compression.Quantized(lplmtl.SharedBottom(todo, encoder))
  x = encoding.encode(golden.ROWS)
  params = contracts.random_params(model, x)
  checkpoint.save(tmp_path / 'model', model, params, encoding)
  served = models.load(tmp_path / 'model')
  found = served.predict(golden.ROWS)
  rounded = quantization.thaw(quantization.freeze(model, params))
  logits, _ = model.model.apply({'params': rounded}, x)
  expected = {name: jax.nn.sigmoid(values) for name, values in logits.items()}
  np.testing.assert_allclose(found['click'], expected['click'][:, 0], rtol=1e-5)
  np.testing.assert_allclose(found['tags'], expected['tags'], rtol=1e-5)
  assert served.kinds == {'click': 'binary', 'tags': 'multilabel'}
  checkpoint.save(tmp_path / 'model', model, params)
  with pytest.raises(InputError, match='saved without tables'):
    models.load(tmp_path / 'model')


@pytest.mark.parametrize('value', [np.nan, [0.5, np.inf]])
def test_a_model_that_predicts_no_number_is_refused(value):
  served = types.SimpleNamespace(example=({}, {'y': value, 'kind': 'new'}))
  with pytest.raises(InputError, match='numbers that are not finite'):
    models._check(served, 'model')


def test_sigterm_ends_it_once_all_are_answered(current, tmp_path, monkeypatch):
  whole = models.to_rows(current.served.predict(FRAME))
  log = tmp_path / 'log'
  with log.open('w') as file, concurrent.futures.ThreadPoolExecutor(1) as pool:
    monkeypatch.setattr(sys, 'stdout', file)

    def client():
      _await(lambda: 'http://' in log.read_text())
      words = log.read_text().split()
      (address,) = (w.rstrip(':') for w in words if w.startswith('http://'))
      opened, rest = _halves(address, 3, ROWS[:2])
      os.kill(os.getpid(), signal.SIGTERM)
      place = urllib.parse.urlsplit(address)
      _await(lambda: _is_refused(place))
      replies = []
      for one in opened:
        with one:
          one.sendall(rest)
          replies.append(_read(one))
      return replies

    replies = pool.submit(client)
    arguments = f'--model={current.folder.parent}', '--port=0'
    assert launch(serve.main, *arguments) == 0
    for reply in replies.result():
      headers, _, body = reply.partition(b'\r\n\r\n')
      assert headers.startswith(b'HTTP/1.1 200 ')
      assert json.loads(body)['predictions'] == whole[:2]


def _read(connection):
  """Reads until the server closes a connection."""
  return b''.join(iter(lambda: connection.recv(9999), b''))


def _is_refused(place):
  try:
    socket.create_connection((place.hostname, place.port)).close()
  except ConnectionRefusedError:
    return True
  return False


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], '--model must name a run or a model'),
    (['--model=/nowhere'], 'found none at /nowhere'),
    ([f'--model={__file__}'], 'is a file: name the folder of a run'),
    (['--host=no.such.host', '--model=x'], '--host=no.such.host --port=0 ('),
    (['--host=192.0.2.1', '--model=x'], 'Cannot assign requested address'),
  ],
)
def test_a_mistake_in_the_flags_is_one_line(arguments, message, capsys):
  assert launch(serve.main, '--port=0', *arguments) == 1
  error = capsys.readouterr().err
  assert message in error and len(error.splitlines()) == 1


def test_a_port_that_is_taken_is_said(address, capsys):
  port = urllib.parse.urlsplit(address).port
  assert launch(serve.main, '--model=x', f'--port={port}') == 1
  error = capsys.readouterr().err
  assert f'--port={port} (Address already in use)' in error
  assert len(error.splitlines()) == 1


def test_a_missing_extra_is_one_line(capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'uvicorn', None)
  monkeypatch.delitem(sys.modules, 'experiments.serving.server')
  monkeypatch.delattr(serving, 'server')
  assert launch(serve.main, '--model=x') == 1
  error = capsys.readouterr().err
  assert "pip install 'lplmtl[serve]'" in error
  assert len(error.splitlines()) == 1
