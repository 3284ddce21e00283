"""What has happened, in order, to be read again and followed."""
