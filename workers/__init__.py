"""What runs on the Ray cluster: data, log-probs, losses, training, serving. torch lives here only."""
