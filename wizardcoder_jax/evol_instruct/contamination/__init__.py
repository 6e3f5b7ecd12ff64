"""Contamination: finding records that hold a benchmark problem, verbatim or disguised, and showing what gives them away."""
