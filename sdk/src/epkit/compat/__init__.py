"""Doors shaped like those of other tools, so that applications can move over by changing an import."""
