"""Code shared by tests: small models, data and servers, and programs that run in separate processes."""
