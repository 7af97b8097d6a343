"""Which server runs where, with which memory, ports and arguments: decided before anything starts."""
