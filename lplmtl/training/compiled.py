"""Compiled programs, kept from one call of `fit` to the next.

Compiling takes about ten times as long as tracing. A program is therefore
traced in every call, and recognised by what was traced: its text. Optimisers
and balancers are closures, made anew by each `optax.adam(1e-3)`, and nothing
but the program itself tells whether two of them are alike; what they refer to
may even have changed in between.
"""

import collections
import functools
import hashlib
import threading
from collections.abc import Hashable

import jax
from jax.sharding import Mesh

from lplmtl.training import agreement, hosts

# A cross-validation needs up to five: one that initialises, and a pair for each
# of two sizes of folds. 16 hold those of three methods. Each takes memory: 10
# to 20 MB for an SPLE.
MAX_PROGRAMS = 16

# A call back to Python (`jax.pure_callback`, `jax.debug.print`) appears in a
# text only as a number, whichever function it calls.
_CALLBACKS = ('callback', 'stablehlo.send')


class _Slot:
  """A program, or the promise of one; the lock is held while it compiles."""

  def __init__(self) -> None:
    self.lock = threading.Lock()
    self.program: jax.stages.Compiled | None = None


_slots: collections.OrderedDict[Hashable, _Slot] = collections.OrderedDict()
_slots_lock = threading.Lock()


def compile_once(
  name: str, lowered: jax.stages.Lowered, mesh: Mesh
) -> jax.stages.Compiled:
  """Compiles a program, or returns the one kept from an earlier call.

  Keeps the `MAX_PROGRAMS` used last, and with them neither rows nor models.
  Threads that ask for the same program wait for one compilation.

  Args:
    name: the name of the program in `programs.Programs`, which stands for its
      compiler options; these are not in its text.
    lowered: the traced program.
    mesh: the devices that it runs on, which are not in its text either.

  Raises:
    HostsError: it is another program in another process.
  """
  text = lowered.as_text()
  compile_it = lowered.compile
  if hosts.spans(mesh):
    own = hashlib.sha256(text.encode()).hexdigest()[:12]
    agreement.check_alike({f'the program {name!r}': own})
    # Only some of the processes may find it in a cache on their disks.
    compile_it = functools.partial(agreement.together, lowered.compile)
  if _depends_on_more(text):
    return compile_it()
  # The text has neither the names in pytrees nor the kind of random keys.
  signature = str((lowered.args_info, jax.tree.leaves(lowered.out_info)))
  digest = hashlib.sha256(f'{signature}\n{text}'.encode()).digest()
  key = (name, mesh, lowered.in_tree, lowered.out_tree, digest)
  slot = _use(key)
  with slot.lock:
    if slot.program is None:
      slot.program = compile_it()
    return slot.program


def num_kept() -> int:
  """Returns how many programs are kept."""
  return len(_slots)


def clear() -> None:
  """Forgets all programs, which frees their memory."""
  with _slots_lock:
    _slots.clear()


def _use(key: Hashable) -> _Slot:
  """Returns the slot of a key, as the one used last."""
  with _slots_lock:
    slot = _slots.setdefault(key, _Slot())
    _slots.move_to_end(key)
    while len(_slots) > MAX_PROGRAMS:
      _slots.popitem(last=False)
  return slot


def _depends_on_more(text: str) -> bool:
  """Returns whether a program depends on more than its text."""
  # Under this option of JAX, a program receives its constants as arguments.
  hoists = getattr(jax.config, 'jax_use_simplified_jaxpr_constants', False)
  return hoists or any(name in text for name in _CALLBACKS)
