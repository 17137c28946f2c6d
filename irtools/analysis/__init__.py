"""Facts about a model, computed from it and never changed.

No face: each analysis stands alone, and who needs one imports no other.
"""
