"""The API of a running proxy: one table of routes (`table`), and what is made of it."""
