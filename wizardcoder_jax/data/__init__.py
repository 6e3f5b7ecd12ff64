"""From instruction files to packed, cached, deterministic batches; numpy only, seqio where the cache is cold."""
