"""The demo: handwritten digits from scratch, measured and shown on a page."""
