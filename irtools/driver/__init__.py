"""Whole runs: from a source, a pipeline and data to a checked artifact and its report.

No face: the names for callers are those of `irtools` itself.
"""
