"""Methods of quantization whose weights are read back into float32, one class each."""
