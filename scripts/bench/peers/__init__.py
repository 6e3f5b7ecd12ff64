"""Shared parts of the comparisons with other libraries: alternating timing, models, and llama.cpp in its own environment."""
