"""What failures of the library and of JAX mean to a user, in one line."""

from experiments.launcher import memory
from lplmtl import training
from lplmtl.storage import pytrees
from lplmtl.training import gradients, hosts


def describe(error: Exception) -> str | None:
  """Returns a line for users; None for a bug, whose traceback is shown."""
  if memory.is_out(error):
    return f'{memory.explain(error)}: lower the sizes or the batch'
  if isinstance(error, gradients.ScopeError):
    return f'{error} (--balancer and --balancer_scope)'
  if isinstance(
    error,
    pytrees.CheckpointError | training.NonFiniteError | hosts.HostsError,
  ):
    return str(error)
  return None
