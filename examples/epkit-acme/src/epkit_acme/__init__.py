"""acme for epkit; the provider is in provider.py."""
