"""What all commands share, from flags to files."""
