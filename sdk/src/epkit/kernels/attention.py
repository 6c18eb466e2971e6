"""Family attention (empty)."""
