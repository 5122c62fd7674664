"""A study in optuna-dashboard: what its pages are shown besides what the study itself holds."""
