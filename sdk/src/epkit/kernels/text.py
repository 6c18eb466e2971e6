"""Family text (empty)."""
