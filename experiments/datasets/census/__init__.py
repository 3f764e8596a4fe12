"""UCI Census-Income (KDD)."""
