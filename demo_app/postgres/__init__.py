"""The site on PostgreSQL: a primary and its streaming standby, Redis, and a night with `readonlyctl run`."""
