"""One queue per file, behind the `Queue` port."""
