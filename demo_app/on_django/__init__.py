"""The site on Django, with its own sessions, authentication and messages; `settings` is where `readonly` comes in."""
