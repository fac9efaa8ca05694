"""Evaluations: models answer the same prompts, judges compare the answers, and statistics say what that shows."""
