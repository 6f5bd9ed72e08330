"""The credential block types, and the clients they open."""
