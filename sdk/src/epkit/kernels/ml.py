"""Family ml (empty)."""
