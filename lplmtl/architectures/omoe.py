"""One-gate mixture of experts (Jacobs et al. 1991; Ma et al. 2018)."""

from lplmtl.architectures import _common


class OMoE(_common.SharedExperts):
  """`y_k = h_k(sum_i g(x)_i f_i(x))`: MMoE with one gate for all tasks.

  Shared parameters: `encoder`, `experts`, `gate`, `hidden_gate`.

  Number of parameters: encoder, E experts, D E for the gate, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    expert: template of an expert f_i, `MLP((64,))` by default.
    num_experts: E, 8 by default.
    tower: template of the bodies of the towers h_k, or a tuple with one per
      task; linear heads are added. `MLP((32,))` by default.
    gate_body: template of the module below the gate's kernel, such as
      `MLP((32,))`; None for a linear gate.

  References:
    Jacobs et al. 1991, "Adaptive Mixtures of Local Experts".
    Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts" (eq. 5).
  """

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return path[0] in ('encoder', 'experts', 'gate', 'hidden_gate')

  def _gate_names(self) -> dict[str, str]:
    return {'shared': 'gate'}
