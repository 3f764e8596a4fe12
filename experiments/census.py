"""Trains several tasks at once on UCI Census-Income (KDD).

    python -m experiments.census --flagfile=experiments/flags/quickstart.flags

From a notebook: `census.run(options.Config(dataset='sample'))`.
"""

from typing import Any

from absl import flags

from experiments import datasets
from experiments.launcher import frame, interrupts, options, output

options.define_flags()
flags.adopt_module_key_flags(options)


def run(config: options.Config) -> dict[str, Any]:
  """Trains, scores, prints and writes what a Config asks for.

  Returns:
    What is written to results.json.

  Raises:
    InputError: a mistake in the Config or the files.
    Exception: of other kinds, see `launcher.run.execute`.
  """
  # JAX takes seconds to import: not for --help.
  from experiments.launcher import run

  return run.execute(config, datasets.find)


def main(argv: list[str]) -> None:
  """Trains what the flags ask for, or scores a saved model (--eval_only)."""
  with frame.command(
    'interrupted outside training: nothing new is kept'
  ) as heed_signals:
    options.refuse_arguments(argv)
    config = options.from_flags(flags.FLAGS)
    # Deferred as in `run`; a mistyped flag has been reported by now.
    from experiments.launcher import jax_setup, run, unused

    jax_setup.apply(config)
    heed_signals()
    if not config.eval_only:
      unused.refuse([config], options.given(flags.FLAGS))
    run.execute(config, datasets.find, on_again=interrupts.leave)
    if config.eval_only:
      output.refuse_loss()  # the printed table is all the output


if __name__ == '__main__':
  frame.run(main)
