"""One use case per file: load, ask the domain, act, record."""
