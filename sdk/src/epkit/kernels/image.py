"""Family image (empty)."""
