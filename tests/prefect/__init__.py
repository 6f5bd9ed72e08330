"""Our templates beside real Prefect, which lives in its own environment."""
