"""The HTTP side: three addresses, limits, and what becomes of mistakes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import lplmtl
from experiments.serving import describing, requests
from experiments.serving.batching import Batcher
from experiments.serving.reloading import Current
from experiments.serving.requests import Refused

# A body that is too large is read up to so many times the limit before it is
# refused: clients that are still sending would not read the answer.
_PATIENCE = 16
_PATHS = 'POST /predict, GET /health, GET /schema'


class Limits(NamedTuple):
  """How much one request may ask for, and all of them together.

  Attributes:
    max_rows: of a request.
    max_bytes: of its body.
    max_requests: that are being read or are waiting.
    timeout: seconds for its body to arrive, and again for its predictions.
  """

  max_rows: int
  max_bytes: int
  max_requests: int
  timeout: float


class Service:
  """The handlers of requests, and what they share."""

  def __init__(self, current: Current, limits: Limits, reload_every: float):
    self._current, self._limits = current, limits
    self._reload_every = reload_every
    self._batcher = Batcher()
    self._num_requests = 0
    self._started = time.time()

  @contextlib.asynccontextmanager
  async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
    """Runs what goes on between requests."""
    running = [asyncio.create_task(self._batcher.work())]
    if self._reload_every:
      watch = self._current.watch(self._reload_every)
      running.append(asyncio.create_task(watch))
    yield
    for task in running:
      task.cancel()
    await asyncio.gather(*running, return_exceptions=True)

  async def predict(self, request: Request) -> Response:
    """POST /predict: `{"rows": [...]}` to `{"predictions": [...]}`."""
    if self._num_requests >= self._limits.max_requests:
      raise Refused(
        503,
        f'{self._num_requests} requests are waiting already: try again later',
        Retry_After='1',
      )
    self._num_requests += 1
    try:
      content = await self._body(request)
      served = self._current.served
      rows = requests.parse(content, self._limits.max_rows)
      requests.check(served, rows)
      async with asyncio.timeout(self._limits.timeout):
        predictions = await self._batcher.predict(served, rows)
    except TimeoutError as error:
      raise Refused(
        503,
        f'no predictions within {self._limits.timeout:g} s: try again later',
        Retry_After='1',
      ) from error
    finally:
      self._num_requests -= 1
    return JSONResponse({'predictions': predictions, 'version': served.version})

  async def _body(self, request: Request) -> bytes:
    """Returns the body of a request.

    Raises:
      Refused: it is too large, or does not arrive.
    """
    content, size = bytearray(), 0
    limit = self._limits.max_bytes
    try:
      async with asyncio.timeout(self._limits.timeout):
        async for part in request.stream():
          size += len(part)
          if size <= limit:
            content += part
          elif size > _PATIENCE * limit:
            break
    except TimeoutError as error:
      raise Refused(
        408,
        f'the body did not arrive within {self._limits.timeout:g} s',
        Connection='close',
      ) from error
    except ClientDisconnect as error:
      raise Refused(400, 'the connection closed before the body') from error
    if size > limit:
      raise Refused(
        413,
        f'a body may have {limit:,} bytes, found more: send fewer rows in each '
        'request',
        Connection='close',
      )
    return bytes(content)

  async def health(self, request: Request) -> Response:
    """GET /health: which model serves, and whether a newer one is no use."""
    served = self._current.served
    return JSONResponse(
      {
        'status': 'ok',
        'model': str(self._current.folder),
        'version': served.version,
        'architecture': type(served.model).__name__,
        'num_seeds': served.num_seeds,
        'tasks': served.kinds,
        'problem': self._current.problem,
        'requests': self._num_requests,
        'seconds': round(time.time() - self._started),
        'lplmtl': lplmtl.__version__,
      }
    )

  async def schema(self, request: Request) -> Response:
    """GET /schema: what a row must have, with an example and its answer."""
    served = self._current.served
    row, predictions = served.example
    return JSONResponse(
      {
        'columns': describing.columns(served.tables),
        'example': {'rows': [row]},
        'answer': {'predictions': [predictions], 'version': served.version},
        'limits': self._limits._asdict(),
      }
    )


def make(current: Current, limits: Limits, reload_every: float) -> Starlette:
  """Returns the application, for any ASGI server.

  Args:
    current: the model.
    limits: see Limits.
    reload_every: seconds between looks at the files of the model; 0 for none.
  """
  service = Service(current, limits, reload_every)
  app = Starlette(
    routes=[
      Route('/predict', service.predict, methods=['POST']),
      Route('/health', service.health),
      Route('/schema', service.schema),
    ],
    exception_handlers={
      Refused: _refused,
      HTTPException: _not_there,
      Exception: _failed,  # and the traceback goes to the log
    },
    lifespan=service.lifespan,
  )
  app.router.redirect_slashes = False
  return app


async def _refused(request: Request, error: Any) -> Response:
  return _error(error.status, error.text, error.headers)


async def _not_there(request: Request, error: Any) -> Response:
  where = f'{request.method} {request.url.path}'
  text = f'there is no {where:.200}; there are {_PATHS}'
  return _error(error.status_code, text, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
  return _error(500, 'the server has failed; its log says where', None)


def _error(
  status: int, text: str, headers: Mapping[str, str] | None
) -> Response:
  return JSONResponse({'error': text}, status, headers=headers)
