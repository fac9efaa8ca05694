"""Webhooks (Standard Webhooks): who is told of which events, what has been sent, and what is still to be."""
