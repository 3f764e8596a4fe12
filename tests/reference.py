"""The papers' equations as literal, slow loops. NumPy only.

Of an architecture, `<name>(params, task_names, x)` predicts one row, and
`<name>_size(sizes)` counts the parameters, from the sizes that
`test_parameter_counts.py` draws.
"""

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


def mlp_size(depth, widths):
  """Kernels and biases of an MLP over `depth` inputs."""
  return sum(
    (d + 1) * h for d, h in zip((depth, *widths), widths, strict=False)
  )


def copy(params, index):
  """Parameters of one expert out of the stack."""
  if isinstance(params, dict):
    return {name: copy(value, index) for name, value in params.items()}
  return np.asarray(params)[index]


def expert_outputs(stack, x):
  count = len(stack['layer_0']['bias'])
  return [mlp(copy(stack, i), x) for i in range(count)]


def gate(params, name, x):
  """Weights; a gate with one choice has no parameters."""
  if name not in params:
    return np.ones(1)
  if f'hidden_{name}' in params:
    x = mlp(copy(params[f'hidden_{name}'], 0), x)
  return softmax(dense({'kernel': params[name]}, x))


def gate_size(inputs, outputs):
  """Kernels without bias; none where there is one expert to choose from."""
  return inputs * outputs if outputs > 1 else 0


def mix(weights, outputs):
  total = np.zeros_like(outputs[0])
  for weight, output in zip(weights, outputs, strict=True):
    total = total + weight * output
  return total


def tower(params, x):
  return dense(params['head'], mlp(params.get('body', {}), x))


def towers_size(sizes, depth):
  """Bodies and heads, one per task."""
  body = mlp_size(depth, sizes['tower'])
  return sum(body + (sizes['tower'][-1] + 1) * k for k in sizes['num_outputs'])


def shared_bottom(params, names, x):
  hidden = mlp(params['bottom'], x)
  return {k: tower(params[f'tower_{k}'], hidden) for k in names}


def shared_bottom_size(s):
  return mlp_size(s['D'], s['bottom']) + towers_size(s, s['bottom'][-1])


def mmoe(params, names, x):
  outputs = expert_outputs(params['experts'], x)
  return {
    k: tower(params[f'tower_{k}'], mix(gate(params, f'gate_{k}', x), outputs))
    for k in names
  }


def mmoe_size(s):
  return omoe_size(s) + (s['T'] - 1) * gate_size(s['D'], s['E'])


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
    k: mix(gate(params, f'gate_{k}', task_inputs[k]), specific[k] + shared)
    for k in names
  }
  if is_last:
    return outputs, None
  pool = [f for k in names for f in specific[k]] + shared
  return outputs, mix(gate(params, 'shared_gate', shared_input), pool)


def level_size(depth, widths, specific, shared):
  """Experts, and the tasks' gates."""
  own = sum(gate_size(depth, count + shared) for count in specific)
  return (sum(specific) + shared) * mlp_size(depth, widths) + own


def ple(params, names, x):
  levels = sum(name.startswith('level_') for name in params)
  own, shared = dict.fromkeys(names, x), x
  for j in range(levels):
    own, shared = extraction_level(
      params[f'level_{j}'], names, own, shared, is_last=j + 1 == levels
    )
  return {k: tower(params[f'tower_{k}'], own[k]) for k in names}


def ple_size(s, levels=None):
  total, depth = 0, s['D']
  levels = s['levels'] if levels is None else levels
  for i, widths in enumerate(levels):
    total += level_size(depth, widths, s['specific'][i], s['shared'][i])
    if i + 1 < len(levels):
      total += gate_size(depth, sum(s['specific'][i]) + s['shared'][i])
    depth = widths[-1]
  return total + towers_size(s, depth)


cgc = ple


def cgc_size(s):
  return ple_size(s, [s['expert']])


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
    weights = gate(last, f'gate_{k}', own[k])
    if top == 'concat':
      inputs = np.concatenate([own[k], mix(weights, experts)])
    elif top == 'identity':
      inputs = mix(weights, [own[k], *experts])
    else:
      inputs = mix(weights, experts)
    predictions[k] = tower(params[f'tower_{k}'], inputs)
  return predictions


def sple_size(s):
  """top='concat': a tower reads its own features and the mixture."""
  *below, top = s['levels']
  total, inputs = 0, s['D']
  for widths, specific, shared in zip(
    below, s['specific'], s['shared'], strict=False
  ):
    total += level_size(inputs, widths, specific, shared)
    total += gate_size(inputs, sum(specific) + shared)
    inputs = widths[-1]
  total += s['num_top'] * mlp_size(inputs, top)
  total += s['T'] * gate_size(inputs, s['num_top'])
  return total + towers_size(s, inputs + top[-1])


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def single_task(params, names, x):
  return {
    k: tower(params[f'tower_{k}'], mlp(params[f'bottom_{k}'], x)) for k in names
  }


def single_task_size(s):
  return s['T'] * mlp_size(s['D'], s['bottom']) + towers_size(
    s, s['bottom'][-1]
  )


soft_sharing = single_task


soft_sharing_size = single_task_size


def soft_sharing_penalty(params, names, strength):
  """Squared distances of all pairs of trunks (Duong et al. 2015, eq. 2)."""
  total = 0.0
  for j, a in enumerate(names):
    for b in names[j + 1 :]:
      for part in ('encoder', 'bottom'):
        total += _distance(
          params.get(f'{part}_{a}', {}), params.get(f'{part}_{b}', {})
        )
  return strength * total


def _distance(a, b):
  if isinstance(a, dict):
    return sum(_distance(a[name], b[name]) for name in a)
  return float(np.sum((np.asarray(a, np.float64) - b) ** 2))


def cross_stitch(params, names, x):
  """Misra et al. 2016, eq. 1, unit by unit."""
  levels = sum(name.startswith('level_') for name in params)
  inputs = dict.fromkeys(names, x)
  for j in range(levels):
    level = params[f'level_{j}']
    own = [mlp(copy(level[f'trunk_{k}'], 0), inputs[k]) for k in names]
    for k in names:
      alpha = level[f'stitch_{k}']
      inputs[k] = np.array(
        [
          sum(alpha[i][h] * own[i][h] for i in range(len(names)))
          for h in range(len(own[0]))
        ]
      )
  return {k: tower(params[f'tower_{k}'], inputs[k]) for k in names}


def cross_stitch_size(s):
  total, depth = 0, s['D']
  for widths in s['levels']:
    total += s['T'] * mlp_size(depth, widths) + s['T'] ** 2 * widths[-1]
    depth = widths[-1]
  return total + towers_size(s, depth)


def tensor_factorization(params, names, x):
  """Yang & Hospedales 2017, eq. 5: forms every entry of W."""
  layers = sum(name.startswith('layer_') for name in params)
  hidden = dict.fromkeys(names, x)
  for i in range(layers):
    layer = {k: np.float64(v) for k, v in params[f'layer_{i}'].items()}
    core, u1, u2 = layer['core'], layer['input_factor'], layer['output_factor']
    for k in names:
      u3 = layer[f'task_factor_{k}']
      w = np.zeros((len(u1), len(u2)))
      for a in range(core.shape[0]):
        for b in range(core.shape[1]):
          for c in range(core.shape[2]):
            w += core[a, b, c] * np.outer(u1[:, a], u2[:, b]) * u3[c]
      hidden[k] = relu(hidden[k] @ w + layer[f'bias_{k}'])
  return {k: tower(params[f'tower_{k}'], hidden[k]) for k in names}


def tensor_factorization_size(s):
  total, depth = 0, s['D']
  for h in s['bottom']:
    a, b, c = (
      min(r, n) for r, n in zip(s['ranks'], (depth, h, s['T']), strict=True)
    )
    total += a * b * c + depth * a + h * b + s['T'] * (c + h)
    depth = h
  return total + towers_size(s, depth)


def omoe(params, names, x):
  mixed = mix(gate(params, 'gate', x), expert_outputs(params['experts'], x))
  return {k: tower(params[f'tower_{k}'], mixed) for k in names}


def omoe_size(s):
  own = s['E'] * mlp_size(s['D'], s['expert']) + gate_size(s['D'], s['E'])
  return own + towers_size(s, s['expert'][-1])


def stacked_mmoe(params, names, x):
  levels = sum(name.startswith('level_') for name in params)
  outputs = expert_outputs(params['level_0']['experts'], x)
  for j in range(1, levels):
    below, level = params[f'level_{j - 1}'], params[f'level_{j}']
    outputs = [
      mlp(
        copy(level[f'expert_{i}'], 0),
        mix(gate(below, f'selector_expert_{i}', x), outputs),
      )
      for i in range(sum(name.startswith('expert_') for name in level))
    ]
  top = params[f'level_{levels - 1}']
  return {
    k: tower(params[f'tower_{k}'], mix(gate(top, f'gate_{k}', x), outputs))
    for k in names
  }


def stacked_mmoe_size(s):
  total, depth = 0, s['D']
  for i, widths in enumerate(s['levels']):
    count = s['by_level'][i]
    readers = [*s['by_level'], s['T']][i + 1]
    total += (
      count * mlp_size(depth, widths) + gate_size(s['D'], count) * readers
    )
    depth = widths[-1]
  return total + towers_size(s, depth)


def dselect_gate(params, x, gamma=1.0):
  """Hazimeh et al. 2021, eq. 3, 4 and 7, and the entropy of each selector."""
  if 'codes' not in params:
    return np.ones(1), 0.0
  codes = np.einsum('d,dim->im', x, params['codes']['kernel'])
  codes = codes + params['codes']['bias']
  shares = softmax(dense(params['shares'], x)) if 'shares' in params else [1.0]
  weights, entropy = np.zeros(2 ** codes.shape[1]), 0.0
  for share, code in zip(shares, codes, strict=True):
    for e in range(len(weights)):
      r = 1.0
      for j, t in enumerate(code):
        if t <= -gamma / 2:
          z = 0.0
        elif t >= gamma / 2:
          z = 1.0
        else:
          z = -2 * t**3 / gamma**3 + 3 * t / (2 * gamma) + 0.5
        r *= z if e // 2**j % 2 else 1 - z
      weights[e] += share * r
      entropy -= r * np.log(r) if r > 0 else 0.0
  return weights, entropy


def dselect_k(params, names, x):
  outputs = expert_outputs(params['experts'], x)
  return {
    k: tower(
      params[f'tower_{k}'],
      mix(dselect_gate(params.get(f'gate_{k}', {}), x)[0], outputs),
    )
    for k in names
  }


def dselect_k_size(s):
  bits = s['E_binary'].bit_length() - 1
  gate = s['k'] * (s['D'] + 1) * bits + gate_size(s['D'], s['k'])
  own = s['E_binary'] * mlp_size(s['D'], s['expert'])
  return own + s['T'] * gate + towers_size(s, s['expert'][-1])


def mtan(params, names, x):
  """Liu et al. 2019, eq. 1 and 2, with dense layers."""
  blocks = sum(name.startswith('block_') for name in params)
  p, own = x, {}
  for i in range(blocks):
    block = params[f'block_{i}']
    u = relu(dense(block['u'], p))
    p = relu(dense(block['p'], u))
    for k in names:
      seen = u
      if i:
        seen = np.concatenate([u, relu(dense(block['f'], own[k]))])
      mask = dense(block[f'h_{k}'], relu(dense(block[f'g_{k}'], seen)))
      own[k] = sigmoid(mask) * p
  return {k: tower(params[f'tower_{k}'], own[k]) for k in names}


def mtan_size(s):
  total, depth, below = 0, s['D'], None
  for (h,) in s['blocks']:
    total += (depth + 1) * h + (h + 1) * h
    own = 2 * (h + 1) * h
    if below is not None:
      total += (below + 1) * h
      own = (2 * h + 1) * h + (h + 1) * h
    total += s['T'] * own
    depth = below = h
  return total + towers_size(s, depth)


def adatt(params, names, x):
  """Li et al. 2023, eq. 3 to 5."""
  levels = sum(name.startswith('level_') for name in params)
  units = [*names, 'shared']
  inputs = dict.fromkeys(units, x)
  for j in range(levels):
    level = params[f'level_{j}']
    outputs = {
      k: expert_outputs(level[f'experts_{k}'], inputs[k])
      for k in units
      if f'experts_{k}' in level
    }
    pool = [f for own in outputs.values() for f in own]
    inputs = {
      k: mix(gate(level, f'gate_{k}', inputs[k]), pool)
      + mix(level[f'native_{k}'], outputs[k])
      for k in outputs
      if f'native_{k}' in level
    }
  return {k: tower(params[f'tower_{k}'], inputs[k]) for k in names}


def adatt_size(s):
  total, depth = 0, s['D']
  for i, widths in enumerate(s['levels']):
    own, shared = sum(s['at_least_one'][i]), s['shared'][i]
    total += (own + shared) * mlp_size(depth, widths)
    total += s['T'] * gate_size(depth, own + shared) + own
    if i + 1 < len(s['levels']):
      total += gate_size(depth, own + shared) + shared
    depth = widths[-1]
  return total + towers_size(s, depth)


def stem(params, names, x):
  """Su et al. 2024; x stands for every embedding."""
  pool = []
  for k in (*(f'specific_experts_{n}' for n in names), 'shared_experts'):
    pool += expert_outputs(params[k], x)
  return {
    k: tower(params[f'tower_{k}'], mix(gate(params, f'gate_{k}', x + x), pool))
    for k in names
  }


def stem_size(s):
  everyone = sum(s['at_least_one'][0]) + s['shared'][0]
  own = everyone * mlp_size(s['D'], s['expert']) + s['T'] * gate_size(
    s['D'], everyone
  )
  return own + towers_size(s, s['expert'][-1])


def esmm(params, names, x):
  """Ma et al. 2018, eq. 1, as the logit of a product of probabilities."""
  p, predictions = 1.0, {}
  for k in names:
    p = p * sigmoid(tower(params[f'tower_{k}'], mlp(params[f'bottom_{k}'], x)))
    predictions[k] = np.log(p / (1 - p))
  return predictions


def esmm_size(s):
  return single_task_size({**s, 'num_outputs': [1] * s['T']})


def aitm(params, names, x):
  """Xi et al. 2021, eq. 3 to 6."""
  predictions, z = {}, None
  for k in names:
    q = mlp(params[f'bottom_{k}'], x)
    if z is not None:
      own = params[f'transfer_{k}']
      tokens = [relu(dense(own['transfer'], z)), q]
      scores = [
        dense(own['key'], u) @ dense(own['query'], u) / np.sqrt(len(q))
        for u in tokens
      ]
      q = mix(
        softmax(np.array(scores)), [dense(own['value'], u) for u in tokens]
      )
    z = q
    predictions[k] = tower(params[f'tower_{k}'], z)
  return predictions


def aitm_size(s):
  h = s['bottom'][-1]
  return esmm_size(s) + (s['T'] - 1) * ((h + 1) * h + 3 * h * h)


def kendall(losses, log_vars, is_regression):
  """Kendall et al. 2018, eq. 7 and 10."""
  total = 0.0
  for loss, s, regression in zip(losses, log_vars, is_regression, strict=True):
    variance = np.exp(s)
    scale = 2 * variance if regression else variance
    total += loss / scale + np.log(np.sqrt(variance))
  return total


def dwa(losses, present, steps_per_epoch, temperature):
  """Liu et al. 2019: `[N, T]` weights of N steps; missing labels do not count."""
  num_steps, num_tasks = losses.shape
  means, weights, found = [], np.ones(num_tasks), []
  for start in range(0, num_steps, steps_per_epoch):
    rows = slice(start, start + steps_per_epoch)
    found += [weights] * len(losses[rows])
    mean = np.zeros(num_tasks)
    for k in range(num_tasks):
      own = [
        x
        for x, here in zip(losses[rows, k], present[rows, k], strict=True)
        if here
      ]
      mean[k] = np.mean(own) if own else means[-1][k]
    means.append(mean)
    if len(means) > 1:
      heights = np.exp(means[-1] / means[-2] / temperature)
      weights = num_tasks * heights / heights.sum()
  return np.array(found)


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


def delong(scores, labels):
  """AUCs and their covariance, pair by pair (DeLong et al. 1988, eq. 4 to 6)."""
  positive, negative = np.flatnonzero(labels > 0), np.flatnonzero(labels <= 0)

  def kernel(x, y):
    return 1.0 if x > y else 0.5 if x == y else 0.0

  m, n = len(positive), len(negative)
  v10 = np.zeros((len(scores), m))
  v01 = np.zeros((len(scores), n))
  for r, own in enumerate(scores):
    for i, p in enumerate(positive):
      for j, q in enumerate(negative):
        v10[r, i] += kernel(own[p], own[q]) / n
        v01[r, j] += kernel(own[p], own[q]) / m
  aucs = v10.mean(axis=1)
  covariance = np.zeros((len(scores), len(scores)))
  for r in range(len(scores)):
    for s in range(len(scores)):
      s10 = sum((v10[r] - aucs[r]) * (v10[s] - aucs[s])) / (m - 1)
      s01 = sum((v01[r] - aucs[r]) * (v01[s] - aucs[s])) / (n - 1)
      covariance[r, s] = s10 / m + s01 / n
  return aucs, covariance


def auc_interval(methods, labels):
  """Estimate, standard error and degrees of freedom of one method, or of two.

  From DeLong's matrix over all seeds of all methods.
  """
  aucs, covariance = delong(np.concatenate(methods), labels)
  first, contrast, seeds = 0, [], []
  for sign, scores in zip((1, -1), methods, strict=False):
    size = len(scores)
    own = covariance[first : first + size, first : first + size]
    diagonal = np.trace(own) / size
    others = (own.sum() - np.trace(own)) / (size * (size - 1))
    over_seeds = aucs[first : first + size].var(ddof=1)
    variance = max(over_seeds - (diagonal - others), 0) / size
    seeds.append((variance, size - 1))
    contrast += [sign / size] * size
    first += size
  contrast = np.array(contrast)
  total = contrast @ covariance @ contrast + sum(v for v, _ in seeds)
  spread = sum(v**2 / freedom for v, freedom in seeds)
  return {
    'estimate': contrast @ aucs,
    'std_error': np.sqrt(total),
    'freedom': total**2 / spread if spread > 0 else np.inf,
  }
