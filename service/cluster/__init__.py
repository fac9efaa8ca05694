"""What the control plane says to a Ray cluster, over HTTP alone: Job Submission and the Serve REST API."""
