"""Read-only mode for Flask."""
