"""Empty so far."""
from . import group_query as group_query
