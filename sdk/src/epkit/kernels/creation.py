"""Family creation (empty)."""
