"""How one trial is trained: build, seed, fit, report. No optuna is imported here."""
