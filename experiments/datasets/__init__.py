"""The data sets that the commands know."""
