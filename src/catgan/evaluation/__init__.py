"""Measuring a generator: one evaluator of samples against real images, alignment diagnostics, attention."""
