"""What outlives the process: one database, SQLite or PostgreSQL."""
