"""Synthetic data, and sources of rows that do not fit in memory."""

from lplmtl.data.arrow_files import ArrowFiles as ArrowFiles
from lplmtl.data.arrow_source import ArrowSource as ArrowSource
from lplmtl.data.customer_table import customers as customers
from lplmtl.data.encoded import Encoded as Encoded
from lplmtl.data.fitting import TableFitter as TableFitter
from lplmtl.data.landscape import STARTS as STARTS
from lplmtl.data.landscape import conflicting_losses as conflicting_losses
from lplmtl.data.related import Drawn as Drawn
from lplmtl.data.related import Outcome as Outcome
from lplmtl.data.related import Problem as Problem
from lplmtl.data.related import keep_labels as keep_labels
from lplmtl.data.related import optimum as optimum
from lplmtl.data.related import related as related
from lplmtl.data.sharded import NUM_SHARDS as NUM_SHARDS
from lplmtl.data.sharded import Sharded as Sharded
from lplmtl.data.synthetic import clicks as clicks
from lplmtl.data.writing import RowWriter as RowWriter
from lplmtl.data.writing import write_rows as write_rows
