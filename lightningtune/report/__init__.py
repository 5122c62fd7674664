"""Looking at a study: compute, then draw."""
