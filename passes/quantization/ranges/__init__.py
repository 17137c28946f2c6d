"""Which numbers become which integers: specs, scales, ranges of activations, rounding."""
