"""Make your own WizardCoder in JAX: evolve instructions, fine-tune StarCoder, sample, evaluate, export."""
