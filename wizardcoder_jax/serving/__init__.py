"""A model served over HTTP with the OpenAI API and a chat page: one engine for many clients."""
