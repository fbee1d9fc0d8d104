"""Where a model's files come from, what lies in a checkpoint folder, and the digests of its files."""
