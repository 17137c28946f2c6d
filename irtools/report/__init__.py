"""Reports: one JSON document, and views of it.

No face: each view is imported where it is shown, and `irc` starts without them.
"""
