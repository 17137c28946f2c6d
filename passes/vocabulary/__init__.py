"""Vocabulary: fewer tokens, and the tokenizer to match."""
