"""Clean-up: exact rewrites that make a graph smaller."""
