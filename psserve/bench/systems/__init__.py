"""The systems that are compared: psserve and its alternatives, on the same engine with the same resources."""
