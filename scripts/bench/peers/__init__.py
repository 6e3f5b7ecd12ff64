"""What benches against others share: taking turns, the models, llama.cpp in an environment of its own."""
