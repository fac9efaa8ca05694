"""The engines that serve a job's models: which there are, and asking them."""
