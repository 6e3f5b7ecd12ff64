"""Sampling: one jitted decode loop over a fixed number of slots, and the scheduler that keeps them full."""
