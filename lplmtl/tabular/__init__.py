"""Your own table: from a DataFrame or a dict of columns to predictions.

A `Schema` says what each column is; the other modules follow it.
"""

from lplmtl.tabular.class_values import class_balance as class_balance
from lplmtl.tabular.description import describe as describe
from lplmtl.tabular.estimator import Estimator as Estimator
from lplmtl.tabular.importance import (
  permutation_importance as permutation_importance,
)
from lplmtl.tabular.inference import Options as Options
from lplmtl.tabular.inference import infer as infer
from lplmtl.tabular.labels import complete as complete
from lplmtl.tabular.predictor import Predictor as Predictor
from lplmtl.tabular.predictor import load as load
from lplmtl.tabular.progress import progress_bar as progress_bar
from lplmtl.tabular.schema import Input as Input
from lplmtl.tabular.schema import Schema as Schema
from lplmtl.tabular.schema import Target as Target
from lplmtl.tabular.scorer import Scorer as Scorer
from lplmtl.tabular.settings import Settings as Settings
from lplmtl.tabular.splits import split as split
from lplmtl.tabular.targets import decode as decode
from lplmtl.tabular.targets import encode_labels as encode_labels
from lplmtl.tabular.targets import make_tasks as make_tasks
from lplmtl.tabular.training import train as train
from lplmtl.tabular.tuning import tune as tune
