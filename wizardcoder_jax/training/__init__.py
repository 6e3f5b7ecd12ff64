"""Fine-tuning: loss, optimizer, the jitted step, checkpoints, metrics."""
