r"""Serves the predictions of a trained model over HTTP.

    python -m experiments.serve --model=runs/customers
    curl http://127.0.0.1:8000/schema
    curl http://127.0.0.1:8000/predict --json '{"rows": [{"age": 33}]}'

The model is that of a finished run, a model folder, or any folder that
`lplmtl.checkpoint.save` wrote with its tables. Rows hold raw values, as in
training, null where one is missing; predictions are those of
`lplmtl.tabular.Predictor`, or probabilities by the names of the tasks.
/schema lists the columns, with an example; experiments/serving/README.md has
the rest.
"""

from absl import flags

from experiments.launcher import frame, options, parsing
from experiments.launcher.errors import InputError

# Other commands have flags of this name, too: a process may import both.
flags.DEFINE_string(
  'model', '', 'The folder of a run, or of a model.', allow_override=True
)
flags.DEFINE_string(
  'host', '127.0.0.1',
  'The address to serve at. The default is reached from this machine only; '
  '0.0.0.0 from others, too: nothing is encrypted, and nobody is asked who he '
  'is.',
)  # fmt: skip
flags.DEFINE_integer(
  'port', 8000, 'The port to serve at; 0 for any free one.', 0, 65535
)
flags.DEFINE_integer('max_rows', 1000, 'Of a request.', lower_bound=1)
flags.DEFINE_integer(
  'max_bytes', 2**21, 'Of the body of a request.', lower_bound=1
)
flags.DEFINE_integer(
  'max_requests', 256,
  'How many may be read or wait at once; others are asked to try again.',
  lower_bound=1,
)  # fmt: skip
flags.DEFINE_float(
  'timeout', 10.0,
  'Seconds for a body to arrive, and for its predictions.', lower_bound=0.1,
)  # fmt: skip
flags.DEFINE_float(
  'reload_every', 2.0,
  'Seconds between looks at the files of the model, which is read again when '
  'they have changed; 0 for none.', lower_bound=0,
)  # fmt: skip


def main(argv: list[str]) -> None:
  """Serves the model that the flags name."""
  with frame.command() as ready:
    options.refuse_arguments(argv)
    asked = flags.FLAGS
    if not asked.model:
      raise InputError(
        '--model must name a run or a model, such as --model=runs/sple; found '
        'none'
      )
    try:
      # JAX takes seconds to import: not for --help.
      from experiments.serving import app, server
    except ModuleNotFoundError as error:
      raise InputError(
        'serving needs Starlette and uvicorn: pip install '
        f"'lplmtl[serve]' ({error})"
      ) from error

    ready(options.Config(cpu_devices=1))
    limits = app.Limits(
      asked.max_rows, asked.max_bytes, asked.max_requests, asked.timeout
    )
    server.run(
      parsing.path('--model', asked.model),
      asked.host,
      asked.port,
      limits,
      asked.reload_every,
    )


if __name__ == '__main__':
  frame.run(main)
