"""Turns instruction files into packed batches in a deterministic order. Uses only NumPy, and seqio if the cache is cold."""
