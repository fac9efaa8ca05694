"""Checkpoints made into models that can be served, promoted and trained from, while training goes on."""
