"""Tools that make models smaller, and count how large they are."""

from lplmtl.compression.cost import count_bytes as count_bytes
from lplmtl.compression.cost import count_flops as count_flops
from lplmtl.compression.cost import count_parameters as count_parameters
from lplmtl.compression.cost import matrix_products as matrix_products
from lplmtl.compression.cost import multiply_adds as multiply_adds
from lplmtl.compression.cost import peak_activations as peak_activations
from lplmtl.compression.distillation import Distilled as Distilled
from lplmtl.compression.distillation import HardMetric as HardMetric
from lplmtl.compression.distillation import distilled as distilled
from lplmtl.compression.distillation import with_teacher as with_teacher
from lplmtl.compression.low_rank import LowRank as LowRank
from lplmtl.compression.merging import merge as merge
from lplmtl.compression.pruning import by_gate_use as by_gate_use
from lplmtl.compression.quantization import Quantized as Quantized
from lplmtl.compression.quantization import Scheme as Scheme
from lplmtl.compression.recipe import Compressed as Compressed
from lplmtl.compression.recipe import compress as compress
from lplmtl.compression.recipe_settings import Recipe as Recipe
from lplmtl.compression.recipe_settings import Within as Within
from lplmtl.compression.soft import SoftClasses as SoftClasses
from lplmtl.compression.soft import SoftDecisions as SoftDecisions
from lplmtl.compression.soft import SoftNumber as SoftNumber
from lplmtl.compression.student import Sizes as Sizes
from lplmtl.compression.teachers import check_teacher as check_teacher
from lplmtl.compression.teachers import ensemble_logits as ensemble_logits
from lplmtl.compression.teachers import to_logits as to_logits
