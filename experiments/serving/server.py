"""The server process: its socket, its signals, its end."""

import pathlib
import signal
import socket

import uvicorn

from experiments.launcher import run_folder
from experiments.launcher.errors import InputError
from experiments.serving import app
from experiments.serving.reloading import Current

# Below the 1,024 open files that most systems allow a process.
_MAX_CONNECTIONS = 900
_WAITING = 128  # connections not yet accepted; more than most systems allow


def run(
  model: pathlib.Path,
  host: str,
  port: int,
  limits: app.Limits,
  reload_every: float,
) -> None:
  """Serves a model until SIGTERM or Ctrl-C, and answers what is waiting then.

  Args:
    model: the folder of a run, or of a model.
    host: an address of this machine.
    port: 0 for any free one, which is printed.
    limits: of requests.
    reload_every: see `app.make`.

  Raises:
    InputError: there is no such model, or the address is taken.
  """
  with bind(host, port) as listener:
    current = Current(run_folder.model_of(model))
    server = make(app.make(current, limits, reload_every), limits)
    # uvicorn has handlers of its own, but when it has finished, it sends itself
    # the signal once more.
    for number in (signal.SIGTERM, signal.SIGINT):
      signal.signal(number, lambda *_: setattr(server, 'should_exit', True))
    # Now, so that no client is refused that reads the line below.
    listener.listen(_WAITING)
    kinds = current.served.kinds.items()
    print(
      f'{current.folder} ({", ".join(f"{k}: {kind}" for k, kind in kinds)}) at '
      f'{address(listener)}: POST /predict, GET /health, GET /schema; Ctrl-C '
      'or SIGTERM stops',
      flush=True,
    )
    server.run([listener])


def bind(host: str, port: int) -> socket.socket:
  """Returns a socket that does not listen yet.

  Raises:
    InputError: the address is none of this machine, or taken.
  """
  try:
    family, kind, _, _, place = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind)
    try:
      # A server that was stopped a moment ago does not keep its port.
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(place)
    except OSError:
      listener.close()
      raise
  except (OSError, UnicodeError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise InputError(
      f'cannot serve at --host={host} --port={port} ({reason}): name an '
      'address of this machine, and a port that is free (0 for any)'
    ) from error
  return listener


def address(listener: socket.socket) -> str:
  """Returns the URL of a bound socket."""
  host, port = listener.getsockname()[:2]
  return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def make(application: object, limits: app.Limits) -> uvicorn.Server:
  """Returns a server, whose `run([socket])` serves an application."""
  config = uvicorn.Config(
    application,  # type: ignore[arg-type]
    lifespan='on',
    ws='none',
    log_level='warning',
    access_log=False,
    server_header=False,
    limit_concurrency=_MAX_CONNECTIONS,
    # A body that is arriving, and then its predictions.
    timeout_graceful_shutdown=int(2 * limits.timeout) + 1,
  )
  return uvicorn.Server(config)
