"""Sampling engine: prefill, decoding with continuous batching, token selection, and loading of the model."""
