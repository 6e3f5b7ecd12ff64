"""Checkpoints: save, verify, restore. Reading one needs no optimizer code."""
