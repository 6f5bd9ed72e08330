"""Serverless push work pools that you own."""

__version__ = "0.1.0"
