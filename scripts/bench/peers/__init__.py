"""Shared modules of the comparisons with other libraries: alternating timing, models, and llama.cpp."""
