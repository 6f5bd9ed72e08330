"""The `push-pools` command."""
