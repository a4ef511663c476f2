"""One small application, once for each framework."""
