"""Family loss (empty)."""
