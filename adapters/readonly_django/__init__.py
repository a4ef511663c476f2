"""Read-only mode for Django. Put `readonly_django` into INSTALLED_APPS and its middleware first into MIDDLEWARE."""
