"""Search for benchmark problems, verbatim or disguised, in training records, with the evidence for each match."""
