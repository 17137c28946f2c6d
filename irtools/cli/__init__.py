"""The command irc.

No face: nothing imports it.
"""
