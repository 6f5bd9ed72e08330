"""One place where jobs run per file, behind the `Platform` port."""
