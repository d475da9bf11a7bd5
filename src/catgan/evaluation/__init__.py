"""Measuring a generator: alignment diagnostics and compute accounting."""
