"""Reports of a run, for people: Markdown and one self-contained HTML page."""
