"""Family activation (empty)."""
