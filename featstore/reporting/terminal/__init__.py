"""Results as plain text and for a terminal."""
