"""What accelerator.py measures: `ours.py` is this package, `torch_peer.py` is transformers with torch."""
