"""The door for pytest: ``pytest --pyargs epkit_conformance --provider acme``."""
