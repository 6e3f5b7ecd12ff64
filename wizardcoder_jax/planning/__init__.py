"""Memory and step time of a run on accelerators that are not there: programs are compiled for them, but not run."""
