"""Family trees (empty)."""
