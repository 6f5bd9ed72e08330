"""Decisions, as plain functions and values: no network, no clock, no environment, no randomness."""
