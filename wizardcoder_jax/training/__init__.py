"""Fine-tuning: objectives, optimizers, the jitted step, and the loop with its callbacks."""
