"""The version, where anything can read it without loading the rest."""

__version__ = "0.2.0"
