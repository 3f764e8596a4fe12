"""Studies: what methods lose as a factor of a generated problem varies."""
