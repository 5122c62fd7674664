"""Who runs a trial."""
