"""Family quantize (empty)."""
