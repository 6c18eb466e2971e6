"""Every version of every operator: a case each, an oracle each. ``python -m tests.versions`` prints the table."""
