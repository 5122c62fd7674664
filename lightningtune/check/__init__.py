"""Check a study before it runs: dry runs of points of its space, and what they show. `study` is the entry."""
