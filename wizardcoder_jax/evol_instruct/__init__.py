"""Code Evol-Instruct: evolution methods, teachers, rounds, elimination rules, filters, decontamination and the data card."""
