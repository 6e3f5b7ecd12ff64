"""Benchmarks: problems, how they are asked (protocols), how answers are cleaned and assembled to programs, pass@k."""
