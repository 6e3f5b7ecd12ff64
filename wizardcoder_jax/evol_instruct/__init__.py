"""Code Evol-Instruct: methods, teachers, rounds, elimination rules, ledger of paid calls, decontamination, data card."""
