"""Launchers: programs around the library. Not part of the package."""
