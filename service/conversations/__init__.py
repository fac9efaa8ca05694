"""What people asked several models side by side, kept for them."""
