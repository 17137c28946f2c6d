"""Measuring: latency in alternating processes, figures, and a child process for risky work.

No face: a child process imports what it runs and nothing else.
"""
