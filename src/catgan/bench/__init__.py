"""How fast the networks and their training run on this machine, and what share of its arithmetic that is."""
