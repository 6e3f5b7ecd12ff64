"""A model behind the OpenAI API over HTTP, with a chat page: many clients, one engine."""
