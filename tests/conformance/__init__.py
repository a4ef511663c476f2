"""One set of scenarios, asked of every framework under every server."""
