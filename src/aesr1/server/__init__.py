"""A local model over HTTP, and its web page."""
