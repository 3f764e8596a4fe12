"""The seam: all that the commands need from a data set, whichever it is.

A command looks up its data set with `datasets.find` and passes it to the
launcher, the comparison or the benchmark, none of which knows Census-Income.
A further data set is one more `Dataset`: two functions. What varies between
data sets (columns, files, labels) stays behind `Source.encode`, so that rows
are read once however many encodings a comparison tries.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import flax.linen as nn

from experiments.launcher.display import Console
from experiments.launcher.options import Config
from lplmtl.tables import Tables
from lplmtl.types import Batch, PyTree, Task


class Predictions(NamedTuple):
  """What a model predicts for the test rows: the mean of its seeds.

  Attributes:
    content: returns the content of a file with the predictions.
    metrics: `{task: {metric: value}}`, numbers in the user's own unit.
  """

  content: Callable[[], bytes]
  metrics: dict[str, dict[str, float]]


class Data(NamedTuple):
  """Encoded rows.

  Attributes:
    tasks: T tasks; every batch has a label for each.
    train: Batch of NumPy arrays; a `lplmtl.types.Source`, as are the two below,
      if a Config says that a table is read in chunks (see `options.in_memory`).
    validation: likewise; the only rows that model selection sees.
    test: likewise.
    tables: how the columns were encoded; saved with a model.
    facts: those of Source, and `rows` (`{split: count}`), `unseen` (`{split:
      {column: count}}`, rows with a value that no training row has) and, if
      labels may be missing, `labelled` (`{split: {task: count}}`).
    optimum: that of Source.
    extra: JSON data to save with a model, beside configuration and facts; a
      table's `schema`, which says what its columns are.
    make_encoder: builds the encoder, in place of that of a Config and `tables`;
      None for the latter.
    predict: predicts the test rows as a user of the model would, by `(model,
      params) -> Predictions`; None if a run writes no predictions.
  """

  tasks: tuple[Task, ...]
  train: Batch
  validation: Batch
  test: Batch
  tables: Tables
  facts: dict[str, Any]
  optimum: dict[str, float]
  extra: Mapping[str, Any] = MappingProxyType({})
  make_encoder: Callable[[], nn.Module] | None = None
  predict: Callable[[nn.Module, PyTree], Predictions] | None = None


class Encode(Protocol):
  """Splits the rows of a Source and encodes them."""

  def __call__(
    self, num_bins: int, tables: Tables | None = None, *, is_last: bool = False
  ) -> Data:
    """Encodes the rows.

    Args:
      num_bins: quantile bins per numeric column, 0 for none.
      tables: what to encode with, instead of tables fitted on the training
        rows; `num_bins` then has no effect.
      is_last: whether the rows will not be encoded again, so that raw ones may
        be let go as soon as they are encoded.

    Raises:
      InputError: the rows cannot be used.
    """


class Source(NamedTuple):
  """Rows as read, before they are split and encoded.

  Attributes:
    tasks: T tasks, which may depend on what the files hold.
    facts: JSON data: `dataset` (a name), `statement` (what the rows are, in one
      line for people), `files` (`{split: {file, rows, sha256, ...}}`).
    optimum: `{task: AUC}` of the generator's own probabilities on the test
      rows; empty unless the rows were generated.
    encode: splits and encodes the rows.
    preview: for rows that take minutes to encode: what `encode` would return,
      known from some of them, for checks that come first. Its `facts` have no
      counts but `rows`, and sources of rows cannot be read. None if encoding
      takes no longer.
  """

  tasks: tuple[Task, ...]
  facts: dict[str, Any]
  optimum: dict[str, float]
  encode: Encode
  preview: Encode | None = None


class Load(Protocol):
  """Reads the rows that a Config names."""

  def __call__(
    self, config: Config, console: Console, saved: Mapping[str, Any] = ...
  ) -> Source:
    """Reads, downloads or generates the rows.

    Args:
      config: names them.
      console: shows progress.
      saved: the `extra` data of a model that is to score the rows. Its schema,
        if it has one, says what the columns are.

    Raises:
      InputError: the rows cannot be read.
    """


class Dataset(NamedTuple):
  """What a command passes on.

  Attributes:
    check: raises InputError for mistakes in a Config. Reads no file, so that
      they are reported before a download.
    load: reads the rows.
  """

  check: Callable[[Config], object]
  load: Load
