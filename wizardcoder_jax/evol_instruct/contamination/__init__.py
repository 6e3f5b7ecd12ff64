"""Decontamination: finds verbatim and disguised copies of benchmark problems in training records, with evidence."""
