"""Batch normalization: `reference` is the textbook, `xla` the fused form, `api` chooses."""
