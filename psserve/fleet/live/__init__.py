"""A fleet that serves: supervision of its processes, and changes while it does."""
