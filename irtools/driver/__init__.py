"""Whole runs: from a source, a pipeline and data to a checked artifact and its report."""
