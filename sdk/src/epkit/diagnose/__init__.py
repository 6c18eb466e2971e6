"""Finding out where a provider goes wrong, and how long it takes: verify, bisect, tune."""
