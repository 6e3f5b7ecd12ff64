"""Estimates of memory and step time on accelerators that this machine does not have: programs are compiled, but not run."""
