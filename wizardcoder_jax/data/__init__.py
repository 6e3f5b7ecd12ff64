"""From instruction files to packed, cached, deterministic batches: NumPy only, and seqio when the cache is cold."""
