"""Family random (empty)."""
