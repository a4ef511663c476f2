"""Applications drawn by a seed and built in each framework: the same request must get the same verdict everywhere."""
