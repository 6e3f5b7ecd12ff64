"""Asking models behind OpenAI-compatible servers: requests, retries, the gate, budgets, the ledger of paid answers."""
