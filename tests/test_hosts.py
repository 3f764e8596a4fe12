"""Several processes: what they tell each other, and one run in two of them."""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lplmtl.storage import pytrees
from lplmtl.training import (
  agreement,
  hosts,
  keepers,
  parallel,
  progress,
  roll_call,
)
from tests import hosts_check

ROOT = pathlib.Path(__file__).parent.parent


def free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


@pytest.mark.parametrize(
  'arguments, complaint',
  [
    (('10.0.0.1:1234', 2, None), 'belong together: .* None'),
    ((None, 2, 0), 'belong together'),
    (('10.0.0.1', 2, 0), 'host:port'),
    (('10.0.0.1:port', 2, 0), 'host:port'),
    ((':1234', 2, 0), 'host:port'),
    (('10.0.0.1:70000', 2, 0), 'host:port'),
    (('10.0.0.1:1234', 2, 2), '0 to below num_processes; found 2 of 2'),
    (('10.0.0.1:1234', 2, -1), 'from 0 to below'),
    (('10.0.0.1:1234', '2', 0), 'whole number'),
  ],
)
def test_places_that_cannot_be(arguments, complaint):
  with pytest.raises(ValueError, match=complaint):
    hosts.initialize(*arguments, timeout=0.1)


def test_addresses():
  assert roll_call.split_address('a.b:12') == ('a.b', 12)
  assert roll_call.split_address('[::1]:12') == ('::1', 12)


def call(port, reports, timeout=5.0, count=3):
  """Returns what the first process and the others learn from a roll call."""
  address, found = f'127.0.0.1:{port}', {}

  def run(name, function, *arguments):
    try:
      function(*arguments)
      found[name] = ''
    except roll_call.AbsentError as error:
      found[name] = str(error)

  threads = [
    threading.Thread(
      target=run, args=(0, roll_call.gather, address, count, timeout)
    )
  ]
  for name, (number, of) in enumerate(reports, 1):
    threads.append(
      threading.Thread(
        target=run, args=(name, roll_call.report, address, number, of, timeout)
      )
    )
  for thread in threads:
    thread.start()
    time.sleep(0.05)  # in this order
  for thread in threads:
    thread.join(30)
  return found


def test_roll_call_of_all():
  port = free_port()
  assert call(port, [(1, 3), (2, 3)]) == {0: '', 1: '', 2: ''}
  with socket.create_server(('127.0.0.1', port)):  # JAX listens there next
    pass


def test_roll_call_names_who_is_missing():
  found = call(free_port(), [(2, 4)], timeout=0.5, count=4)
  assert 'processes 1 and 3 of 4 did not report' in found[0]
  assert 'within 0.5 s' in found[0]
  assert 'did not answer' in found[1]


def test_roll_call_refuses_strangers():
  found = call(free_port(), [(1, 3), (1, 3), (2, 4), (3, 3), (2, 3)])
  assert found[0] == found[1] == found[5] == ''
  assert 'two processes say that they are number 1' in found[2]
  assert 'was started as one of 4, the first as one of 3' in found[3]
  assert 'expected numbers below 3, found 3' in found[4]


def test_roll_call_names_versions_that_differ():
  said = {'process': 1, 'of': 2, 'versions': {'jax': '0.7.2'}}
  assert not roll_call._problem(said, 2, {'jax': '0.7.2'})
  problem = roll_call._problem(said, 2, {'jax': '0.10.2'})
  assert problem == (
    'process 1 has jax 0.7.2 and the first 0.10.2: install the same'
  )
  assert 'jax None' in roll_call._problem(
    {'process': 1, 'of': 2}, 2, {'jax': '0.10.2'}
  )


def test_roll_call_ignores_what_is_no_process():
  port = free_port()

  def disturb():
    for content in (
      b'',
      b'GET / HTTP/1.1\r\n\n',
      b'[1]\n',
      b'{"process": []}\n',
    ):
      with socket.create_connection(('127.0.0.1', port), 5) as guest:
        guest.sendall(content)

  first = threading.Thread(
    target=roll_call.gather, args=(f'127.0.0.1:{port}', 2, 10.0)
  )
  first.start()
  time.sleep(0.1)
  disturb()
  roll_call.report(f'127.0.0.1:{port}', 1, 2, 10.0)
  first.join(10)
  assert not first.is_alive()


def test_a_process_shows_signs_of_life_until_all_have_ended(monkeypatch):
  said = []

  def exchange(own):
    said.append(bool(own))
    return np.array([own, len(said) > 4])  # another one takes longer

  monkeypatch.setattr(agreement, 'exchange', exchange)
  monkeypatch.setattr(agreement, '_LONGEST_ABSENCE', 0.01)
  slow = threading.Event()
  assert agreement.attend(lambda: slow.wait(0.05)) is False
  assert said[0] is False and said[-1] is True and len(said) >= 5
  with pytest.raises(KeyError, match='own'):
    agreement.attend(lambda: {}['own'])

  def lose(own):
    raise hosts.LostError('another process has ended')

  monkeypatch.setattr(agreement, 'exchange', lose)
  with pytest.raises(hosts.LostError):
    agreement.attend(lambda: None)


def test_a_process_that_starts_anew_replaces_itself():
  port = free_port()
  with socket.create_server(('127.0.0.1', port)):
    pass
  found = {}

  def gather():
    roll_call.gather(f'127.0.0.1:{port}', 3, 10.0)
    found['all'] = True

  first = threading.Thread(target=gather)
  first.start()
  time.sleep(0.1)
  with socket.create_connection(('127.0.0.1', port), 5) as gone:
    gone.sendall(b'{"process": 1, "of": 3}\n')
    time.sleep(0.1)
  others = [
    threading.Thread(
      target=roll_call.report, args=(f'127.0.0.1:{port}', i, 3, 10.0)
    )
    for i in (1, 2)
  ]
  for other in others:
    other.start()
  for thread in (*others, first):
    thread.join(10)
  assert found == {'all': True}


def test_a_port_that_is_taken():
  with socket.create_server(('', 0)) as server:
    port = server.getsockname()[1]
    with pytest.raises(hosts.HostsError, match='cannot listen .* another port'):
      hosts.initialize(f'127.0.0.1:{port}', 2, 0, timeout=1)


def test_a_coordinator_that_does_not_answer():
  start = time.monotonic()
  with pytest.raises(hosts.HostsError, match=r'did not answer at .* 0.4 s'):
    hosts.initialize(f'127.0.0.1:{free_port()}', 2, 1, timeout=0.4)
  assert time.monotonic() - start < 10


def test_a_single_process_agrees_with_itself():
  values = np.array([-(2**31), 2**31 - 1], np.int32)
  np.testing.assert_array_equal(agreement.exchange(values), values[None])
  content = bytes(range(256)) * 9
  assert agreement.send(content) == content and agreement.send(b'') == b''
  assert agreement.texts('ä') == ['ä']
  assert agreement.together(lambda: 3) == 3
  with pytest.raises(ZeroDivisionError):
    agreement.together(lambda: 1 // 0)
  agreement.check_alike({'batch_size': 3})


def test_digests():
  tree = {'a': np.arange(3), 'b': jax.random.key(0), 'c': None}
  assert agreement.digest(tree) == agreement.digest(dict(tree))
  for other in (
    {**tree, 'a': np.array([0, 1, 3])},
    {**tree, 'a': np.arange(3).astype(np.int16)},
    {**tree, 'b': jax.random.key(1)},
    {'d': np.arange(3)},
  ):
    assert agreement.digest(other) != agreement.digest(tree)


def test_losses_of_connections_have_a_name():
  lost = pytest.raises(hosts.LostError, match='start all of them again')
  with lost, hosts.naming_loss():
    raise ValueError('UNKNOWN: Gloo AllGather failed: Connection closed')
  with pytest.raises(ValueError, match='^rows$'), hosts.naming_loss():
    raise ValueError('rows')


def fake_devices(counts):
  return [
    types.SimpleNamespace(process_index=process, id=i, platform='cpu')
    for process, count in enumerate(counts)
    for i in range(count)
  ]


@pytest.mark.parametrize(
  'counts, limit, expected',
  [([2, 2], 9, 4), ([2, 2, 2], 3, 3), ([4, 4], 3, 4), ([1, 1, 1, 1], 2, 4)],
)
def test_each_process_gives_equally_many_devices(
  counts, limit, expected, monkeypatch
):
  monkeypatch.setattr(jax, 'process_count', lambda: len(counts))
  found = parallel._of_all_processes(fake_devices(counts), limit)
  assert len(found) == expected
  shares = [
    [x.process_index for x in found].count(i) for i in range(len(counts))
  ]
  assert len(set(shares)) == 1


@pytest.mark.parametrize(
  'counts, processes, rows, complaint',
  [
    ([2, 1], 2, 8, r'equally many .* \{0: 2, 1: 1\}'),
    ([2, 2], 3, 8, 'each of the 3 processes'),
    ([2, 2], 2, 6, 'multiple of the 4 devices of all processes, found 6'),
  ],
)
def test_devices_that_do_not_fit(
  counts, processes, rows, complaint, monkeypatch
):
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  with pytest.raises(ValueError, match=complaint):
    parallel.make_mesh(1, rows, fake_devices(counts))


def test_progress_travels_as_bytes():
  """64-bit numbers, random keys and the history included."""
  keys = jax.random.split(jax.random.key(3), 2)
  state = {'w': jnp.ones((2, 3), jnp.bfloat16), 'key': keys}
  best = {'w': jnp.full((2, 3), 2.0)}
  like = progress.Progress(
    state, best, {'losses': np.zeros((2, 4, 1), np.float32)},
    progress.Choice(
      np.zeros(2, np.int32), np.zeros(2), np.zeros(2, np.int32),
      np.ones(2, bool),
    ),
    np.zeros(2, np.int32), 0, 0, (), 'rows',
  )  # fmt: skip
  sent = like._replace(
    epoch=1, step=3,
    choice=like.choice._replace(
      best_score=np.array([1 + 2**-52, -np.inf]), active=np.array([True, False])
    ),
    history=({'epoch': 1, 'losses': np.array([[0.1], [np.nan]])},),
  )  # fmt: skip
  got = keepers._unpack(like, keepers._pack(sent))
  assert (got.epoch, got.step, got.fingerprint) == (1, 3, 'rows')
  assert keepers.to_json(got.history[0])['epoch'] == 1
  np.testing.assert_array_equal(
    got.history[0]['losses'], sent.history[0]['losses']
  )
  assert agreement.digest(got[:5]) == agreement.digest(
    jax.tree.map(lambda x: x, sent[:5])
  )


def test_places_and_wholes_of_one_process():
  mesh = jax.make_mesh((1,), ('data',), axis_types=(AxisType.Auto,))
  tree = {'x': np.arange(4.0), 'key': jax.random.key(1)}
  placed = hosts.place(tree, NamedSharding(mesh, P()))
  assert not hosts.spans(mesh) and hosts.is_first()
  assert hosts.whole(placed, mesh) is placed


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  """What both of two processes print, each with two devices."""
  case, port = 'mmoe uncertainty source', free_port()
  folder = tmp_path_factory.mktemp('two')
  processes = [
    subprocess.Popen(
      [sys.executable, '-m', 'tests.hosts_check', case, str(folder),
       str(port), '2', str(number), '2'],
      cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for number in range(2)
  ]  # fmt: skip
  (output, errors), (_, others) = (
    p.communicate(timeout=500) for p in processes
  )
  codes = [process.returncode for process in processes]
  assert codes == [0, -9], f'{errors}\n{others}'
  return json.loads(output.splitlines()[-1])


@pytest.mark.slow
def test_two_processes_train_what_one_does(found):
  """50 steps, with dropout, and rows of which each process reads a half."""
  one = hosts_check.train('mmoe uncertainty source')
  two = found['case']
  assert two['best_epoch'] == one['best_epoch'] < 10
  for name in ('losses', 'params'):
    np.testing.assert_allclose(two[name], one[name], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_one_process_stops_all_at_the_same_step(found):
  kind, text = found['stopped']
  assert kind == 'Interrupted' and text.startswith('stopped at step 1')
  assert found['resumed'] == found['case']


@pytest.mark.slow
@pytest.mark.parametrize(
  'mishap, kind, words',
  [
    ('differs', 'HostsError', 'process 1 differs .* batch_size .found 16, in'),
    ('not finite', 'NonFiniteError', 'step . of epoch 1 .*zebra'),
    ('odd', 'ValueError', 'multiple of the 4 shards of the data, found 31'),
    ('spoiled data', 'HostsError', '^process 1: shard 3 has changed$'),
    ('spoiled validation', 'HostsError', '^process 1: a held-out shard is'),
    ('lost', 'LostError', 'another process .* resume from the last save'),
  ],
)
def test_mishaps(mishap, kind, words, found):
  found_kind, text = found[mishap]
  assert found_kind == kind
  assert re.search(words, text), text


@pytest.mark.slow
def test_the_end_of_a_process_is_noticed_within_30_seconds(found):
  assert found['seconds'] < 30
  assert found['handler']  # of SIGTERM, which JAX takes over


def test_only_the_first_process_saves(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with pytest.raises(pytrees.CheckpointError, match='only the first one'):
    pytrees.write(tmp_path / 'a', {'x': np.ones(2)}, {}, 'model')
  assert not os.listdir(tmp_path)
