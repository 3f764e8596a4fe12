"""Files and folders that are written completely or not at all."""

from lplmtl.storage.errors import CheckpointError as CheckpointError
