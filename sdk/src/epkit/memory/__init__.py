"""Shared memory management: lifetimes, offsets, arenas. Vendors supply only raw allocate and free."""
