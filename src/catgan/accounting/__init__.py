"""Parameters, arithmetic, memory, plans, published models: what measures no sample."""
