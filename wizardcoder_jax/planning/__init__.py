"""What a run would need and how long a step would take, from programs that are compiled for accelerators and not run."""
