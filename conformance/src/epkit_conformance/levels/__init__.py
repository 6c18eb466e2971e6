"""One file a level; each builds on the one before."""
