"""The cases, one file a kind. Each offers ``cases()``; ``catalogue.py`` gathers them."""
