"""Multi-gate mixture of experts (Ma et al. 2018)."""

from lplmtl.architectures import _common


class MMoE(_common.SharedExperts):
  """`y_k = h_k(sum_i g_k(x)_i f_i(x))`, `g_k(x) = softmax(W_k x)` (eq. 6 to 8).

  Shared parameters: `encoder`, `experts`.

  Number of parameters: encoder, E experts, D E T for the gates, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    expert: template of an expert f_i, `MLP((64,))` by default.
    num_experts: E, 8 by default.
    tower: template of the bodies of the towers h_k, or a tuple with one per
      task; linear heads are added. `MLP((32,))` by default.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from lplmtl import tasks
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model = MMoE(todo, num_experts=4)
    >>> key, x = jax.random.key(0), jnp.ones((2, 8))
    >>> (logits, aux), params = jax.eval_shape(model.init_with_output, key, x)
    >>> aux['gates'][0]['buy']['experts'].shape  # [B, E]
    (2, 4)

  References:
    Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts".
  """

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return path[0] in ('encoder', 'experts')

  def _gate_names(self) -> dict[str, str]:
    return {task.name: f'gate_{task.name}' for task in self.tasks}
