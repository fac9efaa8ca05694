"""Base and aligned model side by side, on vLLM through Ray Serve LLM."""
