"""Fakes and doubles that keep the real systems' promises, and the contract suites of the ports."""
