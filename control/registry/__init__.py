"""Services and endpoints from all sources, merged into one table."""
