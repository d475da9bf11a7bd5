"""The format on disk: reading and writing checkpoints, and exported generators. No pickle is written or read."""
