"""What visitors see, in a real browser."""
