"""Family sequence (empty)."""
