"""The permission, which Django keeps in the database; there is no table."""
