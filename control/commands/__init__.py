"""The commands, one module for each topic. All but those of files are clients of the API."""
