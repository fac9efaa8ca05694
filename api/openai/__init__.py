"""OpenAI's fine-tuning API as a thin translation onto AlignmentJob: a script changes its base URL and nothing else."""
