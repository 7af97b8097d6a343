"""Who goes to the servers now, and who waits: bounded queues, fair between modules, in front of every placement."""
