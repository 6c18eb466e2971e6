"""Family signal (empty)."""
