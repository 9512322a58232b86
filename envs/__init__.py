"""Image-scanning environments and their episodes."""
