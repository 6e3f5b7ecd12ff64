"""Reports of evaluations, evolve runs and whole loops: self-contained HTML pages, and Markdown."""
