"""What every command shares, from flags to files."""
