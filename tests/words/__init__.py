"""The catalogues that come with the library: what is in them, and how they are made."""
