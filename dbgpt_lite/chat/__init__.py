"""Use cases: the one place where models, documents and databases meet."""
