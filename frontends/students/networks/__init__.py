"""Networks of Transformers that learn: read from folders, made smaller, given adapters."""
