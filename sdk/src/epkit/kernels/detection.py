"""Family detection (empty)."""
