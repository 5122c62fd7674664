"""The command ``lightningtune``."""
