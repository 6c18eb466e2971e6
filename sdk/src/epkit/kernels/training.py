"""Family training (empty)."""
