"""Benchmarks: problems, protocols (prompt and answer cleaning), program assembly and pass@k."""
