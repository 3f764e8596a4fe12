"""Your own table: from a DataFrame or a dict of columns to predictions.

A `Schema` says what each column is; the other modules follow it.
"""

from lplmtl.tabular.description import describe as describe
from lplmtl.tabular.inference import Options as Options
from lplmtl.tabular.inference import infer as infer
from lplmtl.tabular.labels import class_balance as class_balance
from lplmtl.tabular.labels import complete as complete
from lplmtl.tabular.schema import Input as Input
from lplmtl.tabular.schema import Schema as Schema
from lplmtl.tabular.schema import Target as Target
from lplmtl.tabular.splits import split as split
from lplmtl.tabular.targets import decode as decode
from lplmtl.tabular.targets import encode_labels as encode_labels
from lplmtl.tabular.targets import make_tasks as make_tasks
