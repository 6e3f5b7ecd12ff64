"""The sampling engine: prefill, decoding with continuous batching, token selection, and what starts it from a MODEL."""
