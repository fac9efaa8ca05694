"""`plumbline demo`: a small model made by the service itself, aligned, and asked side by side with its base."""
