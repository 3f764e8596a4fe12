"""Tools that make models smaller, and count how large they are."""

from lplmtl.compression.cost import count_bytes as count_bytes
from lplmtl.compression.cost import count_flops as count_flops
from lplmtl.compression.cost import count_parameters as count_parameters
from lplmtl.compression.cost import matrix_products as matrix_products
from lplmtl.compression.cost import multiply_adds as multiply_adds
from lplmtl.compression.cost import peak_activations as peak_activations
from lplmtl.compression.low_rank import LowRank as LowRank
from lplmtl.compression.pruning import by_gate_use as by_gate_use
from lplmtl.compression.quantization import Quantized as Quantized
from lplmtl.compression.quantization import Scheme as Scheme
