"""Where a model multiplies by, or looks up in, a constant."""
