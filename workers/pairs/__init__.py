"""What training did to its pairs: their log-probs before and after, token by token (format: `service.spec.pairs`)."""
