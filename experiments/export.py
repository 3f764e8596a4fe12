"""Writes a trained model as a program that does not need lplmtl.

    python -m experiments.export --model=runs/sple --to=dist
    cd dist && cc -std=c99 -O2 model.c model_test.c -lm && ./a.out
    python -m experiments.export --model=runs/sple --format=onnx,stablehlo
    python -m experiments.export --model=runs/sple --format=web

The model is that of a finished run, a model folder, or any folder that
`lplmtl.checkpoint.save` wrote. Raw rows go in (of --format=stablehlo, encoded
ones), probabilities come out, or numbers in their own unit; see
lplmtl/export/README.md. report.json in --to lists files and bytes,
multiply-adds, the largest difference to JAX (with --test_data, over your own
rows, too) and, if a C compiler is there, sections, stack and time of a row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments.launcher import frame, options, parsing
from experiments.launcher.errors import InputError

FORMATS = ('c99', 'numpy', 'onnx', 'stablehlo', 'packed', 'web')

# Other commands have flags of these names, too: a process may import both.
flags.DEFINE_string(
  'model', '', 'The folder of a run, or of a model.', allow_override=True
)
flags.DEFINE_list(
  'format', ['c99', 'numpy'],
  f'What to write, of {", ".join(FORMATS)}; packed is C, too, for a '
  'SharedBottom that was trained with few bits; web is a page for any browser, '
  'with packed of the packed model.',
)  # fmt: skip
flags.DEFINE_string('to', 'dist', 'The folder to write; made if need be.')
flags.DEFINE_string(
  'name', 'model', 'Of the files, and the beginning of all names in C.'
)
flags.DEFINE_string(
  'test_data', '', 'A table of raw rows, as in training, to compare with JAX; '
  'lines that model_csv.c reads have its columns.',
  allow_override=True,
)  # fmt: skip
flags.DEFINE_enum(
  'hash_bits', '8', ['8', '16'],
  'Of --format=packed: bits that tell a category from others. With 16, a text '
  'that training never saw seldom passes for a known one.',
)  # fmt: skip
flags.DEFINE_enum(
  'bits', None, ['8', '4', '3', '2'],
  'Rounds the weights of a model that was trained without: with 8 bits at next '
  'to no loss, and biases to float16. Fewer cost quality, unless trained: see '
  'experiments.compress.',
)  # fmt: skip
flags.DEFINE_integer(
  'seed_index', 0, 'Which of the trained seeds, counted from 0.', lower_bound=0
)


def main(argv: list[str]) -> None:
  """Exports the model that the flags name."""
  with frame.command() as ready:
    options.refuse_arguments(argv)
    asked = flags.FLAGS.format
    unknown = [name for name in asked if name not in FORMATS]
    if unknown or not asked:
      raise InputError(
        f'--format must name some of {", ".join(FORMATS)}; found '
        f'{", ".join(unknown) or "none"}'
      )
    if {'c99', 'packed'} <= set(asked):
      raise InputError(
        '--format=c99,packed would write the same files twice: name one of them'
      )
    if not flags.FLAGS.model:
      raise InputError(
        '--model must name a run or a model, such as --model=runs/sple; found '
        'none'
      )
    # JAX takes seconds to import: not for --help.
    from experiments.datasets.tables import reader
    from experiments.exporting import writing

    def read(missing: Sequence[str]) -> tuple[Mapping[str, Any], str]:
      config = options.Config(test_data=file)
      table = reader.read(config, missing, 'test_data')
      return reader.values(table.columns), table.facts['format']

    ready()
    file = flags.FLAGS.test_data
    print(
      writing.export_model(
        parsing.path('--model', flags.FLAGS.model),
        parsing.path('--to', flags.FLAGS.to),
        tuple(asked),
        name=flags.FLAGS.name,
        seed=flags.FLAGS.seed_index,
        bits=int(flags.FLAGS.bits or 0),
        hash_bits=int(flags.FLAGS.hash_bits),
        test_rows=writing.Rows(file, read) if file else None,
      )
    )


if __name__ == '__main__':
  frame.run(main)
