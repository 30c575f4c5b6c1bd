"""Features out of the store for other people's tools, and other people's features into it."""
