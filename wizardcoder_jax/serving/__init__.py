"""HTTP server for a model: the OpenAI API and a chat page, with one engine for all clients."""
