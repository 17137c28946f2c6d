"""Passes that run other people's tools: their quantizers, and rewrite rules of onnxscript."""
