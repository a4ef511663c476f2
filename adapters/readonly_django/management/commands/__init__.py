"""`manage.py readonly`."""
