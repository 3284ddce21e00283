"""The control side: commands and API."""
