"""Requests to models behind OpenAI-compatible servers: retries, rate limits, budgets and the ledger of paid answers."""
