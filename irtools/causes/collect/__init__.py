"""Measuring what detectors read, once and when it is first asked for."""
