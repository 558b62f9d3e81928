"""Private chat over your own documents and your own database, on models and GPUs you own."""

__version__ = "0.1.0"
