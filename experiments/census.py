"""Trains several tasks at once on UCI Census-Income (KDD).

    python -m experiments.census --flagfile=experiments/flags/quickstart.flags

From a notebook: `census.run(options.Config(dataset='sample'))`.
"""

from absl import flags

from experiments.launcher import frame, options, processes, start
from experiments.launcher.start import run as run

options.define_flags()
flags.adopt_module_key_flags(options)
processes.define_flags()
flags.adopt_module_key_flags(processes)


def main(argv: list[str]) -> None:
  """Trains what the flags ask for, or scores a saved model (--eval_only)."""
  with frame.command(start.INTERRUPTED) as ready:
    options.refuse_arguments(argv)
    config = options.from_flags(flags.FLAGS)
    start.from_flags(config, options.given(flags.FLAGS), ready)


if __name__ == '__main__':
  frame.run(main)
