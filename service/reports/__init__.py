"""Reports and model cards: what a job made, from what, how it went, and what evaluations say of it."""
