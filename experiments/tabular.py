r"""Trains on a table of your own, or predicts with what it trained.

    python -m experiments.tabular --data=customers.csv --targets=churn,value
    python -m experiments.tabular --data=new.csv --model=runs/customers \
        --predict_to=scores.csv

The first command prints what it takes each column for, and writes results.json,
schema.json, pictures, the model and test_predictions.csv to runs/customers. A
wrong guess is mended by a flag (--categories=zip), or by editing schema.json
and handing it back with --schema. Most runs need no other flags than these;
--epochs, --num_seeds and --architecture are the next to try.
"""

from absl import flags

from experiments.launcher import frame, options, parsing, processes, start
from experiments.launcher.errors import InputError
from experiments.launcher.start import run as run

options.define_flags(options.TABLE_DEFAULTS)
for _name in options.of_tables():
  flags.declare_key_flag(_name)
processes.define_flags()
flags.adopt_module_key_flags(processes)
flags.DEFINE_string(
  'model', '',
  'Predict: the folder of a finished run, or the model folder in it.',
)  # fmt: skip
flags.DEFINE_string(
  'predict_to', '',
  'Predict: the file for the predictions, whose name ends in .csv, .txt, '
  '.parquet or .pq, or - for standard output. Every row of --data gets one, in '
  'order.',
)  # fmt: skip

_HINT = (
  'to train, give --data and --targets; to predict, --data, --model and '
  '--predict_to'
)


def main(argv: list[str]) -> None:
  """Trains, scores a saved model (--eval_only) or predicts (--predict_to)."""
  with frame.command(start.INTERRUPTED) as ready:
    options.refuse_arguments(argv, _HINT)
    config = options.from_flags(flags.FLAGS)
    given = options.given(flags.FLAGS)
    model = parsing.path('--model', flags.FLAGS.model)
    if not config.data:
      raise InputError(
        '--data must name a table, such as --data=customers.csv; found none'
      )
    if bool(flags.FLAGS.model) != bool(flags.FLAGS.predict_to):
      raise InputError(
        '--model and --predict_to belong together: the model that predicts, '
        'and the file for its predictions'
      )
    if not flags.FLAGS.predict_to:
      start.from_flags(config, given, ready)
      return
    processes.refuse(flags.FLAGS, 'predicting')
    # JAX takes seconds to import: not for --help.
    from experiments.datasets.tables import predicting

    ready(config)
    predicting.predict(config, given, model, flags.FLAGS.predict_to)


if __name__ == '__main__':
  frame.run(main)
