"""Import and export of Hugging Face models: weights, tokenizers, model cards, GGUF. Only .bin files need torch."""
