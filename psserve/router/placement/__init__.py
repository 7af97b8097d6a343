"""Which pair of servers gets a sequence: what is known of its prompt, and what servers hold."""
