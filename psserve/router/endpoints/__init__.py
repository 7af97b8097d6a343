"""The HTTP endpoints, and the gate that every request passes."""
