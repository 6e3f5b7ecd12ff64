"""Import and export of Hugging Face models: weights, tokenizers, model cards, GGUF. Only reading .bin files requires torch."""
