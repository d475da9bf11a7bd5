"""Pages about runs, made from what a run directory holds."""
