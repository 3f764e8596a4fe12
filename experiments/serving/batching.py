"""Gathers the rows of requests that wait while the model is busy."""

import asyncio
import collections
import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.serving import models, requests
from experiments.serving.models import Served
from experiments.serving.requests import Row

# Rows that are encoded together, unless one request has more. A call of
# `Tables.encode` costs as much as 60 to 80 rows in it: more rows would gain
# little, and these keep others waiting for some 10 ms.
MOST = 256

Prediction = Mapping[str, Any]
Answer = Sequence[Prediction] | Exception


class _Waiting(NamedTuple):
  served: Served
  rows: Sequence[Row]
  answer: asyncio.Future


class Batcher:
  """One thread that predicts what is waiting, for all requests at once.

  A request that comes while the model is idle does not wait for others.
  """

  def __init__(self) -> None:
    self._waiting: collections.deque[_Waiting] = collections.deque()
    self._news = asyncio.Event()

  async def predict(
    self, served: Served, rows: Sequence[Row]
  ) -> Sequence[Prediction]:
    """Predicts rows that were checked.

    Raises:
      Refused: a value cannot be encoded.
    """
    if not rows:
      return []
    answer = asyncio.get_running_loop().create_future()
    self._waiting.append(_Waiting(served, rows, answer))
    self._news.set()
    return await answer

  async def work(self) -> None:
    """Predicts until it is cancelled."""
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(1, 'model') as thread:
      while True:
        await self._news.wait()
        self._news.clear()
        while batch := self._gather():
          parts = [one.rows for one in batch]
          try:
            answers: Sequence[Answer] = await loop.run_in_executor(
              thread, predict_all, batch[0].served, parts
            )
          except Exception as error:  # of one batch: the others go on
            answers = [error] * len(batch)
          for one, answer in zip(batch, answers, strict=True):
            _settle(one.answer, answer)

  def _gather(self) -> list[_Waiting]:
    """Takes requests for one model, in order; none if none is waiting."""
    batch: list[_Waiting] = []
    count = 0
    while self._waiting:
      first = self._waiting[0]
      if first.answer.done():  # nobody waits for it any more
        self._waiting.popleft()
        continue
      count += len(first.rows)
      if batch and (count > MOST or first.served is not batch[0].served):
        break
      batch.append(self._waiting.popleft())
    return batch


def predict_all(served: Served, parts: Sequence[Sequence[Row]]) -> list[Answer]:
  """Predicts the rows of several requests together.

  Returns:
    For each request its predictions, or why it is refused.
  """
  rows = [row for part in parts for row in part]
  try:
    features = served.tables.encode(requests.columns_of(served, rows))
  except ValueError as error:
    if len(parts) == 1:
      return [requests.explain(error, rows)]
    # Whose fault it is: the others get their predictions.
    return [predict_all(served, [part])[0] for part in parts]
  made = models.to_rows(served.predict_encoded(features))
  ends = np.cumsum([len(part) for part in parts]).tolist()
  return [made[n - len(p) : n] for p, n in zip(parts, ends, strict=True)]


def _settle(waiting: asyncio.Future, answer: Answer) -> None:
  if waiting.done():  # it has timed out meanwhile
    return
  if isinstance(answer, Exception):
    waiting.set_exception(answer)
  else:
    waiting.set_result(answer)
