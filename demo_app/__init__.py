"""The Touchline: a small sports-news site that shows `readonly` at work, and the load that checks it."""
