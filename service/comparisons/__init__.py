"""The same question to a job's base and aligned model."""
