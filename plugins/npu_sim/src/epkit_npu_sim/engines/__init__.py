"""What the machine's engines do to the scratchpad, one file an engine."""
