"""The model that is served now, and its successor when its files change."""

import asyncio
import os
import pathlib
import sys
import time
from collections.abc import Mapping

from experiments.serving import models
from experiments.serving.models import Served

Stamp = Mapping[str, tuple[int, int, int]]


class Current:
  """What is served now.

  Attributes:
    folder: of the model.
    served: the newest model that could be read.
    problem: why a newer one could not be, in one line, or ''.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self._stamp = stamp(folder)  # before reading: a change meanwhile counts
    self.served: Served = models.load(folder)
    self.problem = ''

  async def watch(self, seconds: float) -> None:
    """Looks for changed files every few seconds, until it is cancelled.

    A change is read once it has lasted: files that are being copied would be
    damaged. Requests go on meanwhile, with the model that they came to.
    """
    seen = self._stamp
    while True:
      await asyncio.sleep(seconds)
      before, seen = seen, await asyncio.to_thread(stamp, self.folder)
      if seen == before != self._stamp:
        self._stamp = seen
        await self._reload()

  async def _reload(self) -> None:
    try:
      served = await asyncio.to_thread(models.load, self.folder)
    except Exception as error:  # a file that is bad in any way ends no service
      self.problem = ' '.join(str(error).split()) or type(error).__name__
      old = self.served.version
      _log(f'version {old} stays, as its successor is no use: {self.problem}')
      return
    old, self.served, self.problem = self.served.version, served, ''
    if served.version != old:
      _log(f'version {served.version} serves in place of {old}')


def stamp(folder: pathlib.Path) -> Stamp:
  """Returns what tells files from changed ones, without reading them."""
  found = {}
  for parent, _, names in os.walk(folder):
    for name in names:
      path = os.path.join(parent, name)
      try:
        facts = os.stat(path)
      except OSError:  # removed meanwhile
        continue
      found[path] = facts.st_ino, facts.st_size, facts.st_mtime_ns
  return found


def _log(text: str) -> None:
  print(
    f'{time.strftime("%Y-%m-%d %H:%M:%S")} {text}', file=sys.stderr, flush=True
  )
