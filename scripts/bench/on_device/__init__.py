"""What accelerator.py measures: `ours.py` is this package, `torch_reference.py` is transformers with torch."""
