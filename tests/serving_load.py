r"""Sends requests to a server from many clients at once, and times them.

    python -m experiments.serve --model=runs/customers
    python -m tests.serving_load http://127.0.0.1:8000 --clients=32 --count=5000

The second command sends the example of /schema, one row a request.
"""

import argparse
import asyncio
import json
import re
import time
import urllib.parse
import urllib.request
from typing import NamedTuple

import numpy as np


class Reply(NamedTuple):
  """The response to a request; `seconds` from its first to its last byte."""

  status: int
  headers: bytes
  body: bytes
  seconds: float


def send(address, bodies, num_clients):
  """Posts bodies to /predict from clients that wait for each reply.

  Args:
    address: URL of the server.
    bodies: bytes of each request.
    num_clients: connections, which are kept open.

  Returns:
    A Reply for each body, in order.
  """
  replies = [None] * len(bodies)
  todo = iter(enumerate(bodies))
  place = urllib.parse.urlsplit(address)

  async def client():
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for i, body in todo:
      head = (
        f'POST /predict HTTP/1.1\r\nHost: {place.netloc}\r\n'
        f'Content-Length: {len(body)}\r\n\r\n'
      )
      began = time.perf_counter()
      writer.write(head.encode() + body)
      headers = await reader.readuntil(b'\r\n\r\n')
      size = int(re.search(rb'content-length: (\d+)', headers)[1])
      found = await reader.readexactly(size)
      seconds = time.perf_counter() - began
      replies[i] = Reply(int(headers.split()[1]), headers, found, seconds)
    writer.close()
    await writer.wait_closed()

  async def run():
    await asyncio.gather(*(client() for _ in range(num_clients)))

  asyncio.run(run())
  return replies


def main():
  """Prints requests a second and percentiles of the time of a request."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('address')
  parser.add_argument('--clients', type=int, default=1)
  parser.add_argument('--count', type=int, default=1000)
  parser.add_argument('--rows', type=int, default=1, help='of each request')
  asked = parser.parse_args()
  with urllib.request.urlopen(f'{asked.address}/schema') as response:
    (row,) = json.load(response)['example']['rows']
  body = json.dumps({'rows': [row] * asked.rows}).encode()
  send(asked.address, [body] * 50, asked.clients)  # to warm up
  began = time.perf_counter()
  replies = send(asked.address, [body] * asked.count, asked.clients)
  took = time.perf_counter() - began
  assert {reply.status for reply in replies} == {200}
  half, most = np.percentile([1e3 * r.seconds for r in replies], (50, 99))
  print(
    f'{asked.clients} clients, {asked.rows} rows a request: '
    f'{asked.count / took:,.0f} requests a second, '
    f'{half:.2f} ms (half) and {most:.2f} ms (99 of 100) a request'
  )


if __name__ == '__main__':
  main()
