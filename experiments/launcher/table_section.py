"""The settings of a run on a table of the user's own; see `sections`."""

import dataclasses

from experiments.launcher import fields

_TABLE = ('source', 'table')  # what takes the fields of Table


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the user's own: its files, and what its columns are."""

  data: str = fields.path(
    '',
    'the table: a CSV file (also compressed), a Parquet, Feather or Arrow '
    'file, a folder of such files, a pattern such as "sales-*.csv", or - for '
    'standard input.',
  )
  test_data: str = fields.path(
    '',
    'a second table, with the test rows. Default: a tenth of the rows of '
    '--data.',
    taken_by=_TABLE,
  )
  stream: str = fields.choice(
    'auto',
    ('auto', 'always', 'never'),
    'whether the table is read in chunks, for one that is larger than memory. '
    'By default if its files have more than 2 GB, rows are split at random and '
    'no --schema is given.',
    taken_by=_TABLE,
  )
  targets: tuple[str, ...] = fields.names(
    (),
    'the columns to predict, each with its kind if the guess is wrong: '
    'churn,segment:multiclass,value:regression,topics:multilabel(a+b),'
    'rating:ordinal(poor+fair+good). Kinds: binary, multiclass, ordinal (its '
    'classes from the lowest to the highest), regression, count, multilabel.',
    taken_by=_TABLE,
  )
  schema: str = fields.path(
    '',
    'a schema.json that an earlier run wrote, perhaps edited: it says what '
    'each column is, so no other flag may.',
    taken_by=_TABLE,
  )
  categories: tuple[str, ...] = fields.names(
    (), 'columns to read as categories.', taken_by=_TABLE
  )
  numbers: tuple[str, ...] = fields.names(
    (), 'columns to read as numbers.', taken_by=_TABLE
  )
  dates: tuple[str, ...] = fields.names(
    (),
    'columns to read as dates, each with its format if that is not found: '
    'day:%d/%m/%Y.',
    taken_by=_TABLE,
  )
  booleans: tuple[str, ...] = fields.names(
    (), 'columns to read as yes or no.', taken_by=_TABLE
  )
  ignore: tuple[str, ...] = fields.names(
    (), 'columns to leave out.', taken_by=_TABLE
  )
  missing: tuple[str, ...] = fields.names(
    (),
    'texts, or numbers such as -999, that mean "missing", besides blanks, NA '
    'and the like.',
    taken_by=_TABLE,
  )
  positive: tuple[str, ...] = fields.names(
    (),
    'the positive class of a binary target: churn:yes. Its probability is what '
    'is predicted.',
    taken_by=_TABLE,
  )
  weight_column: str = fields.text(
    '',
    "the column that holds each row's weight in the losses.",
    taken_by=_TABLE,
  )
  task_weights: tuple[str, ...] = fields.names(
    (),
    'columns that hold the weight of each row for one target: churn:churn_w.',
    taken_by=_TABLE,
  )
  split_column: str = fields.text(
    '', 'the column that says train, validation or test.', taken_by=_TABLE
  )
  time_column: str = fields.text(
    '',
    'the column of the time of a row: the latest tenth are test rows, the '
    'tenth before them validation rows.',
    taken_by=_TABLE,
  )
  group_column: str = fields.text(
    '',
    'the column of a group, such as a customer, whose rows stay in one split.',
    taken_by=_TABLE,
  )
  index_column: str = fields.text(
    '',
    'the column that names a row in test_predictions.csv and in predictions; '
    'not an input. Default: the number of the row.',
    taken_by=_TABLE,
  )
  min_count: int = fields.integer(
    1,
    1,
    1_000_000_000,
    'a category in fewer training rows shares the id of unseen ones.',
    taken_by=_TABLE,
  )
  max_vocabulary: int = fields.integer(
    10_000,
    1,
    1_000_000_000,
    'a column of categories with more values than this is hashed.',
    taken_by=_TABLE,
  )
  num_buckets: int = fields.integer(
    4096,
    2,
    1_000_000_000,
    'rows of the table of embeddings of a hashed column.',
    taken_by=_TABLE,
  )
  separator: str = fields.text(
    '',
    'the character between the fields of a CSV file, or tab, also of '
    'predictions. Default: found from the first lines; a comma in predictions.',
    taken_by=_TABLE,
  )
  encoding: str = fields.text(
    '',
    'the encoding of a CSV file, such as latin-1. Default: found from its '
    'first bytes.',
    taken_by=_TABLE,
  )
  decimal: str | None = fields.choice(
    None,
    ('.', ','),
    'the decimal point of a CSV file, also of predictions. Default: found from '
    'the first lines; a point in predictions.',
    taken_by=_TABLE,
  )
  column_names: tuple[str, ...] = fields.names(
    (), 'the columns of a CSV file that has no header.', taken_by=_TABLE
  )
