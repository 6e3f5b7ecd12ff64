"""Model families: one module each, found by `model_type` in the registry."""
