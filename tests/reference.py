"""The papers' equations as literal, slow loops. NumPy only."""

import numpy as np


def relu(x):
  return np.maximum(x, 0)


def softmax(x):
  exp = np.exp(x - x.max())
  return exp / exp.sum()


def dense(params, x):
  y = x @ np.asarray(params['kernel'], np.float64)
  return y + np.asarray(params['bias'], np.float64) if 'bias' in params else y


def mlp(params, x):
  for i in range(len(params)):
    x = relu(dense(params[f'layer_{i}'], x))
  return x


def copy(params, index):
  """Parameters of one expert out of the stack."""
  if isinstance(params, dict):
    return {name: copy(value, index) for name, value in params.items()}
  return np.asarray(params)[index]


def expert_outputs(stack, x):
  count = len(stack['layer_0']['bias'])
  return [mlp(copy(stack, i), x) for i in range(count)]


def gate(kernel, x):
  return softmax(dense({'kernel': kernel}, x))


def mix(weights, outputs):
  total = np.zeros_like(outputs[0])
  for weight, output in zip(weights, outputs, strict=True):
    total = total + weight * output
  return total


def tower(params, x):
  return dense(params['head'], mlp(params.get('body', {}), x))


def shared_bottom(params, names, x):
  hidden = mlp(params['bottom'], x)
  return {k: tower(params[f'tower_{k}'], hidden) for k in names}


def mmoe(params, names, x):
  outputs = expert_outputs(params['experts'], x)
  return {
    k: tower(params[f'tower_{k}'], mix(gate(params[f'gate_{k}'], x), outputs))
    for k in names
  }


def extraction_level(params, names, task_inputs, shared_input, is_last):
  """One level of PLE (Tang et al. 2020, eq. 5 to 8)."""
  shared = expert_outputs(params['shared_experts'], shared_input)
  specific = {
    k: expert_outputs(params[f'specific_experts_{k}'], task_inputs[k])
    if f'specific_experts_{k}' in params
    else []
    for k in names
  }
  outputs = {
    k: mix(gate(params[f'gate_{k}'], task_inputs[k]), specific[k] + shared)
    for k in names
  }
  if is_last:
    return outputs, None
  pool = [f for k in names for f in specific[k]] + shared
  return outputs, mix(gate(params['shared_gate'], shared_input), pool)


def ple(params, names, x):
  levels = sum(name.startswith('level_') for name in params)
  own, shared = dict.fromkeys(names, x), x
  for j in range(levels):
    own, shared = extraction_level(
      params[f'level_{j}'], names, own, shared, is_last=j + 1 == levels
    )
  return {k: tower(params[f'tower_{k}'], own[k]) for k in names}


cgc = ple


def sple(params, names, x, top):
  levels = sum(name.startswith('level_') for name in params)
  own, shared = dict.fromkeys(names, x), x
  for j in range(levels - 1):
    own, shared = extraction_level(
      params[f'level_{j}'], names, own, shared, is_last=False
    )
  last = params[f'level_{levels - 1}']
  experts = expert_outputs(last['shared_experts'], shared)
  predictions = {}
  for k in names:
    weights = gate(last[f'gate_{k}'], own[k])
    if top == 'concat':
      inputs = np.concatenate([own[k], mix(weights, experts)])
    elif top == 'identity':
      inputs = mix(weights, [own[k], *experts])
    else:
      inputs = mix(weights, experts)
    predictions[k] = tower(params[f'tower_{k}'], inputs)
  return predictions


def kendall(losses, log_vars, is_regression):
  """Kendall et al. 2018, eq. 7 and 10."""
  total = 0.0
  for loss, s, regression in zip(losses, log_vars, is_regression, strict=True):
    variance = np.exp(s)
    scale = 2 * variance if regression else variance
    total += loss / scale + np.log(np.sqrt(variance))
  return total


def liebel_koerner(losses, log_vars):
  """Liebel & Körner 2018, eq. 3."""
  total = 0.0
  for loss, s in zip(losses, log_vars, strict=True):
    variance = np.exp(s)
    total += loss / (2 * variance) + np.log(1 + variance)
  return total


def binary_cross_entropy(logit, label):
  def log_sigmoid(x):
    return -np.log1p(np.exp(-x)) if x > 0 else x - np.log1p(np.exp(x))

  return -(label * log_sigmoid(logit) + (1 - label) * log_sigmoid(-logit))


def roc_auc(scores, labels):
  """Share of pairs in the right order, ties one half."""
  wins = pairs = 0.0
  for score, label in zip(scores, labels, strict=True):
    for other, other_label in zip(scores, labels, strict=True):
      if label > other_label:
        pairs += 1
        wins += 1.0 if score > other else 0.5 if score == other else 0.0
  return wins / pairs


def calibration_error(probabilities, labels, num_bins):
  total = 0.0
  for b in range(num_bins):
    low, high = b / num_bins, (b + 1) / num_bins
    inside = [
      i
      for i, p in enumerate(probabilities)
      if low < p <= high or (b == 0 and p == 0)
    ]
    if inside:
      gap = np.mean([labels[i] - probabilities[i] for i in inside])
      total += len(inside) / len(labels) * abs(gap)
  return total


def adam(gradients, learning_rate):
  """The steps of Adam (Kingma & Ba 2015, algorithm 1)."""
  m = v = 0.0
  steps = []
  for t, g in enumerate(gradients, 1):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    steps.append(-learning_rate * m_hat / (np.sqrt(v_hat) + 1e-8))
  return steps


def pcgrad(gradients, orders):
  """Yu et al. 2020, Algorithm 1: `[T, P]` gradients, T orders of the tasks."""
  projected = [g.copy() for g in gradients]
  for i, order in enumerate(orders):
    for j in order:
      if j == i:
        continue
      inner = 0.0
      for a, b in zip(projected[i], gradients[j], strict=True):
        inner += a * b
      if inner < 0:
        length = sum(b * b for b in gradients[j])
        projected[i] = projected[i] - inner / length * gradients[j]
  return sum(projected)
