"""Code Evol-Instruct: evolves instructions with a teacher model in rounds, then filters, decontaminates and reports them."""
