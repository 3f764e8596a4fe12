r"""Measures the time of one row: a network in all its forms, and trees as good.

    python -m experiments.latency --model=runs/census66k_sple_uncertainty \
      --data_dir=$LPLMTL_CENSUS_DIR --out=latency.json

The contestants are C (of float weights and of 8 bits, by `cc` at -O2 and -O3),
`make_predictor`, the NumPy reader, onnxruntime, and LightGBM's trees, by its
own functions and by onnxruntime. The trees are trained here, on the rows of the
run: as few as reach the validation AUC of the network. All take turns in one
process, on one thread. Needs the extras onnx and trees, onnxruntime, and a C
compiler; see experiments/benchmark/README.md.
"""

import os

from absl import flags

from experiments import datasets
from experiments.launcher import frame, options, parsing
from experiments.launcher.errors import InputError

options.define_flags()
for _name in ('data', 'data_dir'):
  flags.declare_key_flag(_name)
# Other commands have flags of these names, too: a process may import both.
flags.DEFINE_string(
  'model', '', 'The folder of a run, or of its model.', allow_override=True
)
flags.DEFINE_integer(
  'seed_index', 0, 'Which of the trained seeds, counted from 0.',
  lower_bound=0, allow_override=True,
)  # fmt: skip
flags.DEFINE_string(
  'out', '', 'JSON file for the figures; none by default.', allow_override=True
)
flags.DEFINE_bool('trees', True, 'Whether trees are among the contestants.')
flags.DEFINE_integer(
  'turns', 15, 'Of each contestant.', lower_bound=2, upper_bound=100_000
)


def main(argv: list[str]) -> None:
  """Measures what the flags ask for, and prints a table."""
  with frame.command() as ready:
    options.refuse_arguments(argv)
    values = flags.FLAGS
    others = options.given(values) - {'data', 'data_dir'}
    if others:
      raise InputError(
        f'--{min(others)} is a setting of a run: leave it out, as --model '
        'knows how it was trained'
      )
    if not values.model:
      raise InputError(
        '--model must name a run, such as --model=runs/sple; found none'
      )
    config = options.from_flags(values)
    # Before JAX starts: all contestants have one thread.
    single = '--xla_cpu_multi_thread_eigen=false'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {single}'
    # JAX takes seconds to import: not for --help.
    from experiments.benchmark import latency

    ready()
    asked = latency.Asked(
      parsing.path('--model', values.model),
      values.seed_index,
      values.trees,
      values.turns,
      parsing.path('--out', values.out) if values.out else None,
    )
    latency.measure(asked, config, datasets.find)


if __name__ == '__main__':
  frame.run(main)
