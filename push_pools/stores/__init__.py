"""One ledger per file, behind the `Store` port."""
