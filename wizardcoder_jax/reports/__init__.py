"""Reports of evaluations, of evolve runs and of `reproduce` runs, as self-contained HTML pages and as Markdown."""
