"""sidecar: a complete, safe LLM backend for any chat frontend, in one local program."""

__version__ = "0.1.0"
