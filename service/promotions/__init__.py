"""Stable names of models: what they mean, what they meant before, and what has to be passed to get one."""
