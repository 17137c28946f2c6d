"""Measurements against other tools: `python -m benchmarks list`, `prepare` and `run NAME`."""
