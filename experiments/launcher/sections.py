"""All settings of a training run, in five sections.

`Data` chooses rows of Census-Income, `Table` a table of the user's own. Data,
Table, Model and Optimisation say what is computed: with the rows, they identify
a run. `Run` says where and how, and may differ when a run is resumed.
"""

import dataclasses

from experiments.launcher import fields
from experiments.launcher.parsing import Widths
from experiments.launcher.table_section import Table as Table

_LARGEST_SEED = (
  2_000_000_000  # an int32 even after the number of seeds is added
)
# Host devices among which JAX can exchange data; with more, it hangs.
_MOST_DEVICES = 256
_COMPOSED = ('compose_by', 'multiply', 'add', 'concat')


@dataclasses.dataclass(frozen=True)
class Data:
  """Which rows are read, and what is predicted from them."""

  dataset: str = fields.choice(
    'census',
    ('census', 'census66k', 'sample'),
    'UCI Census-Income (KDD), downloaded once; census66k, a smaller split of '
    'its official test rows; or sample, generated rows (offline).',
    taken_by=('source', 'census'),
  )
  tasks: tuple[str, ...] = fields.names(
    ('income', 'marital'),
    'any of income, marital, education.',
    taken_by=('source', 'census'),
  )
  validation: str = fields.choice(
    'tenth',
    ('tenth', 'test_half'),
    'validate on a tenth of the training rows or, as the papers do, on half of '
    'the test rows.',
    taken_by=('source', 'census'),
  )
  split_seed: int = fields.integer(
    0, 0, _LARGEST_SEED, 'seed of the validation split (and of the test split).'
  )
  num_rows: int = fields.integer(
    20_000,
    1,
    1_000_000_000,
    'rows of --dataset=sample.',
    taken_by=('dataset', 'sample'),
  )


@dataclasses.dataclass(frozen=True)
class Model:
  """The architecture and its sizes."""

  architecture: str = fields.text(
    'sple',
    'the name of a file in lplmtl/architectures, such as shared_bottom, mmoe, '
    'ple, sple; an unknown name lists them all.',
  )
  embed_dim: int = fields.integer(
    4, 1, 1_000_000, 'width of a category embedding.'
  )
  compose_by: str = fields.choice(
    'none',
    ('none', 'multiply', 'add', 'concat'),
    'how the embedding of a category is composed of two rows in columns of '
    'many values, which saves memory; see lplmtl/layers/composed.py.',
  )
  compose_above: int = fields.integer(
    10_000,
    1,
    1_000_000_000,
    'columns of more values than this are composed.',
    taken_by=_COMPOSED,
  )
  collisions: int = fields.integer(
    4,
    1,
    1_000_000,
    'values that share a row of the larger of the two tables.',
    taken_by=_COMPOSED,
  )
  num_bins: int = fields.integer(
    128,
    0,
    1_000_000,
    'at most this many quantile bins per numeric column, embedded beside its '
    'standardised value; 0 for none.',
  )
  interpolate: bool = fields.boolean(
    False,
    'embed a number by functions that are linear between the edges of its '
    'bins, instead of the bin; see lplmtl/layers/piecewise.py.',
  )
  num_crosses: int = fields.integer(
    0,
    0,
    100,
    'layers of feature crosses (DCN-V2) on top of the embedded columns.',
  )
  cross_rank: int = fields.integer(
    32,
    1,
    1_000_000,
    'rank of each feature cross.',
    taken_by=('num_crosses', *range(1, 101)),
  )
  expert_widths: tuple[Widths, ...] = fields.levels(
    ((32,), (32,)),
    'units of an expert: one entry per extraction level, lowest first, its '
    'layers joined by x (128x64,64). Architectures with one level use the '
    'first entry.',
    taken_by=('architecture', 'expert', 'levels'),
  )
  num_experts: int = fields.integer(
    8,
    1,
    10_000,
    'experts of mmoe, omoe, dselect_k (a power of 2), and of each level of '
    'stacked_mmoe.',
    taken_by=('architecture', 'num_experts'),
  )
  num_specific: int = fields.integer(
    2,
    0,
    10_000,
    'specific experts per task and level (cgc, ple, sple, adatt, stem).',
    taken_by=('architecture', 'num_specific'),
  )
  num_shared: int = fields.integer(
    2,
    0,
    10_000,
    'shared experts per level (cgc, ple, sple, adatt, stem).',
    taken_by=('architecture', 'num_shared'),
  )
  num_top: int = fields.integer(
    2,
    1,
    10_000,
    "shared experts of sple's top level.",
    taken_by=('architecture', 'num_top'),
  )
  num_selected: int = fields.integer(
    2,
    1,
    10_000,
    'experts that each gate of dselect_k selects.',
    taken_by=('architecture', 'num_selected'),
  )
  top: str = fields.choice(
    'concat',
    ('concat', 'identity', 'shared'),
    "how task-specific features pass through sple's top level.",
    taken_by=('architecture', 'top'),
  )
  soft_sharing: float = fields.real(
    1e-4,
    'penalty of soft_sharing on the distances between parameters.',
    taken_by=('architecture', 'strength'),
  )
  selection_entropy: float = fields.real(
    1e-3,
    "penalty on the entropy of dselect_k's selection.",
    taken_by=('architecture', 'entropy'),
  )
  ranks: tuple[int, ...] = fields.widths(
    (32, 32, 2),
    'ranks of inputs, outputs and tasks in tensor_factorization, joined by x.',
    taken_by=('architecture', 'ranks'),
  )
  bottom_widths: tuple[int, ...] = fields.widths(
    (128,),
    'layers of the shared bottom, joined by x.',
    taken_by=('architecture', 'bottom'),
  )
  tower_widths: tuple[int, ...] = fields.widths(
    (32,),
    'layers of each tower, joined by x.',
    taken_by=('architecture', 'tower'),
  )
  dropout: float = fields.real(
    0.2, 'dropout rate in experts and towers.', high=0.99
  )
  compute_dtype: str = fields.choice(
    'float32',
    ('float32', 'bfloat16'),
    'precision of the products in experts and towers; parameters, gates, '
    'losses and metrics are float32 either way. bfloat16 is for accelerators: '
    'it slows CPUs down.',
  )


@dataclasses.dataclass(frozen=True)
class Optimisation:
  """How the parameters and the loss weights are learned."""

  num_seeds: int = fields.integer(1, 1, 10_000, 'models to train at once.')
  seed: int = fields.integer(0, 0, _LARGEST_SEED, 'the first seed.')
  balancer: str = fields.text(
    'uncertainty',
    'the name of a constructor in lplmtl.balancing, such as equal, '
    'uncertainty, mgda, cagrad, famo; an unknown name lists them all.',
  )
  balancer_scope: str | None = fields.choice(
    None,
    ('all', 'shared', 'representation'),
    'what the balancer acts on: all parameters; those that tasks share; or '
    'those that tasks share, by the gradients at the shared representation. '
    "Default: the method's own.",
  )
  loss_weight_learning_rate: float | None = fields.real(
    None,
    "learning rate of learned loss weights. Default: the balancer's own.",
    taken_by=('balancer', 'learning_rate'),
  )
  loss_weights: tuple[float, ...] = fields.reals(
    'one number per task: the weights of the balancer static, or those that '
    'exponential starts from.',
    taken_by=('balancer', 'weights', 'initial'),
  )
  loss_weight_rates: tuple[float, ...] = fields.reals(
    'one factor per task, by which the weights of exponential are multiplied '
    'in every epoch.',
    taken_by=('balancer', 'rates'),
  )
  loss_weight_sum: float | None = fields.real(
    None,
    'scale the weights of any balancer to this sum, for example the number of '
    "tasks. Default: the method's own sum. Not for aggregators.",
  )
  optimizer: str = fields.choice(
    'adam', ('adam', 'adamw', 'adagrad', 'sgd'), 'the Optax optimiser.'
  )
  lazy: bool = fields.boolean(
    False,
    'a step changes only those rows of embedding tables that its batch reads '
    '(see lplmtl/sparse.py): for columns of 100,000 values and more.',
  )
  shard_tables: bool = fields.boolean(
    False,
    'with --lazy and one seed: each device holds a part of the embedding '
    'tables, whose rows are filled up to a multiple of 1,024.',
  )
  learning_rate: float = fields.real(
    1e-3, '(highest) learning rate of the optimiser.'
  )
  schedule: str = fields.choice(
    'constant',
    ('constant', 'cosine', 'free'),
    'the learning rate over the epochs: cosine ends at 0; free is constant, '
    'and averages the parameters over the steps instead (schedule-free).',
  )
  weight_decay: float = fields.real(
    0.0, 'weight decay of adamw.', taken_by=('optimizer', 'adamw')
  )
  batch_size: int = fields.integer(256, 1, 1_000_000_000, 'rows per step.')
  epochs: int = fields.integer(
    12, 1, 1_000_000, 'passes over the training rows.'
  )
  eval_every: int = fields.integer(
    1, 1, 1_000_000, 'epochs between validations.'
  )
  patience: int = fields.integer(
    0,
    0,
    1_000_000,
    'stop after this many validations without improvement; 0 to never stop.',
  )


@dataclasses.dataclass(frozen=True)
class Run:
  """Where files are, and how the work is done."""

  data_dir: str | None = fields.path(
    None,
    'folder with the official files (.data and .test, plain, .gz, or the '
    'archive as downloaded). Default: $XDG_CACHE_HOME/lplmtl/census-income.',
  )
  out_dir: str | None = fields.path(
    None,
    'folder for results, curves and the model. Default: '
    'runs/<dataset>_<architecture>_<balancer>, or runs/ and the name of the '
    'table.',
  )
  resume: bool = fields.boolean(
    True,
    'if --out_dir holds a run with the same configuration and data, resume it; '
    'with --noresume, refuse.',
  )
  overwrite: bool = fields.boolean(
    False, 'remove the run that --out_dir holds, and start over.'
  )
  eval_only: bool = fields.boolean(
    False,
    'score the model in --out_dir again, with the configuration that it was '
    'trained with; of the other flags only --data_dir, or --data and '
    '--test_data, count. Every row of a table other than that of training is '
    'scored.',
  )
  skip_nonfinite: int = fields.integer(
    0,
    0,
    1_000_000_000,
    'steps with a non-finite loss or gradient that each seed may skip; one '
    'more ends the run.',
  )
  save_every_steps: int = fields.integer(
    0,
    0,
    1_000_000_000,
    'save the progress whenever this many steps of an epoch are done, and at '
    'its end; 0 to go by time only.',
  )
  save_every_seconds: float = fields.real(
    60.0, 'save the progress at least this often, in seconds.'
  )
  num_checkpoints: int = fields.integer(
    2, 1, 10_000, 'how many of the latest checkpoints to keep.'
  )
  cpu_devices: int = fields.integer(
    0,
    0,
    _MOST_DEVICES,
    'host devices of a CPU, over which the seeds, or the rows of a batch, are '
    'spread; 0 for one per core, as long as each has enough work.',
  )
  log_to: tuple[str, ...] = fields.names(
    (),
    'where to send the figures of each epoch as well: any of tensorboard '
    '(event files in --out_dir), wandb, mlflow; each needs its extra.',
    choices=('tensorboard', 'wandb', 'mlflow'),
  )
  compilation_cache: str = fields.path(
    '',
    'folder for compiled programs, or "none" to keep none. Default: '
    '$XDG_CACHE_HOME/lplmtl/jax.',
  )
