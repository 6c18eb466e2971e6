"""Running a compiled model: session, steps, transfers, control flow, profile."""
