"""All processes report to the first one, before JAX connects them.

JAX's own start ends a process with a page of C++ when another one is missing.
Here each one learns in one line who is missing, or who came twice. The first
process listens at the address at which JAX's coordinator will be.
"""

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any

# Seconds from one attempt to connect to the next, and for one attempt.
_PAUSE, _ATTEMPT = 0.2, 10.0
_LONGEST = 1000  # bytes of a message


class AbsentError(RuntimeError):
  """Processes that did not report in time, or that do not belong together."""


def split_address(address: str) -> tuple[str, int]:
  """Returns the host and the port of `host:port`.

  Raises:
    ValueError: it is something else.
  """
  host, colon, port = str(address).rpartition(':')
  host = host.removeprefix('[').removesuffix(']')  # of an IPv6 address
  if not (colon and host and port.isdecimal() and 0 < int(port) < 2**16):
    raise ValueError(
      'the coordinator must be host:port of the first process, such as '
      f'10.0.0.1:1234; found {address!r}'
    )
  return host, int(port)


def gather(
  address: str,
  num_processes: int,
  timeout: float,
  versions: Mapping[str, str] | None = None,
) -> None:
  """Waits in the first process until all others have reported.

  Args:
    address: `host:port`; it listens at this port, whatever the host.
    num_processes: how many there are, this one included.
    timeout: seconds.
    versions: of packages, by name, which all must have: others would hang.

  Raises:
    AbsentError: some did not report, or the port is taken.
  """
  _, port = split_address(address)
  deadline = time.monotonic() + timeout
  here: dict[int, socket.socket] = {}
  refused = ''
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_listen(port))
    while len(here) < num_processes - 1:
      try:
        server.settimeout(max(deadline - time.monotonic(), 0.01))
        guest = stack.enter_context(server.accept()[0])
      except TimeoutError:
        missing = sorted(set(range(1, num_processes)) - set(here))
        raise AbsentError(
          f'{_named(missing)} of {num_processes} did not report to the first '
          f'one at port {port} within {timeout:g} s: start all of them with '
          f'the same coordinator{refused}'
        ) from None
      try:
        said = _hear(guest, min(deadline, time.monotonic() + _ATTEMPT))
        number = said['process']
        problem = _problem(said, num_processes, dict(versions or {}))
      except (OSError, ValueError, KeyError, TypeError):
        continue  # no process of ours, or it has ended
      # One that has ended meanwhile, and may have been started anew.
      here = {n: peer for n, peer in here.items() if _is_open(peer)}
      if not problem and number in here:
        problem = f'two processes say that they are number {number}'
      if problem:
        refused = f' ({problem})'
        _say(guest, {'problem': problem})
      else:
        here[number] = guest
    for guest in here.values():
      _say(guest, {})


def report(
  address: str,
  process_id: int,
  num_processes: int,
  timeout: float,
  versions: Mapping[str, str] | None = None,
) -> None:
  """Reports to the first process, and waits until all have done so.

  Args:
    address: `host:port` of the first process.
    process_id: number of this process, from 1.
    num_processes: how many there are.
    timeout: seconds.
    versions: see `gather`.

  Raises:
    AbsentError: no answer, or the first process refuses this one.
  """
  place = split_address(address)
  deadline = time.monotonic() + timeout
  reason = 'no answer'
  while (left := deadline - time.monotonic()) > 0:
    try:
      with socket.create_connection(place, min(left, _ATTEMPT)) as host:
        own = {'process': process_id, 'of': num_processes}
        _say(host, {**own, 'versions': dict(versions or {})})
        problem = _hear(host, deadline).get('problem')
      if problem:
        raise AbsentError(f'the first process, at {address}, says: {problem}')
      return
    except (OSError, ValueError, AttributeError) as error:
      # Not there yet, or it is what an earlier run has left there.
      reason = getattr(error, 'strerror', None) or 'no answer'
      time.sleep(min(_PAUSE, max(deadline - time.monotonic(), 0)))
  raise AbsentError(
    f'the first of {num_processes} processes did not answer at {address} '
    f'within {timeout:g} s ({reason}): start it there, or check the address '
    'and the firewall'
  )


def _listen(port: int) -> socket.socket:
  try:
    if socket.has_dualstack_ipv6():
      with contextlib.suppress(OSError):  # a machine without IPv6
        return socket.create_server(
          ('', port), family=socket.AF_INET6, dualstack_ipv6=True
        )
    return socket.create_server(('', port))
  except OSError as error:
    raise AbsentError(
      f'the first process cannot listen at port {port} ({error.strerror}): '
      'choose another port for the coordinator'
    ) from error


def _problem(
  said: Mapping[str, Any], num_processes: int, versions: dict[str, str]
) -> str:
  """Returns what is wrong with a process, by its report; or nothing."""
  number, count = said['process'], said['of']
  if count != num_processes:
    return (
      f'process {number} was started as one of {count}, the first as one of '
      f'{num_processes}'
    )
  if number not in range(1, num_processes):
    return f'expected numbers below {num_processes}, found {number!r}'
  found = dict(said.get('versions') or {})
  different = [
    f'{name} {found.get(name)} and the first {version}'
    for name, version in versions.items()
    if found.get(name) != version
  ]
  if different:
    return f'process {number} has {", ".join(different)}: install the same'
  return ''


def _say(peer: socket.socket, message: dict[str, Any]) -> None:
  with contextlib.suppress(OSError):  # it has ended: others will notice
    peer.sendall(json.dumps(message).encode() + b'\n')


def _hear(peer: socket.socket, deadline: float) -> dict[str, Any]:
  """Returns one message; raises TimeoutError, OSError or ValueError."""
  content = b''
  while not content.endswith(b'\n') and len(content) < _LONGEST:
    peer.settimeout(max(deadline - time.monotonic(), 0.01))
    part = peer.recv(_LONGEST)
    if not part:
      raise ConnectionResetError
    content += part
  message: dict[str, Any] = json.loads(content)
  return message


def _is_open(peer: socket.socket) -> bool:
  """Whether a process that has reported is still waiting."""
  with selectors.DefaultSelector() as ready:
    ready.register(peer, selectors.EVENT_READ)
    return not ready.select(0)  # it says nothing more: readable is its end


def _named(numbers: Collection[int]) -> str:
  *most, last = map(str, numbers)
  return (
    f'processes {", ".join(most)} and {last}' if most else f'process {last}'
  )
