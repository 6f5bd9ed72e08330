"""A simulation of the real code that tries to break the guarantee; `docs/proof.md` tells how to run it."""
