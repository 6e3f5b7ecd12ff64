"""Saves, verifies and restores checkpoints. Reading the weights of a checkpoint requires no training code."""
