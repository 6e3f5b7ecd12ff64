"""Hugging Face in and out: architectures, weights, tokenizers, GGUF. No torch."""
