"""Encryption of the secret fields of blocks."""
