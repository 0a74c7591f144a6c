"""The version of nanogan, which files and reports name."""

__version__ = "0.1.0"
