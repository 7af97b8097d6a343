"""What soak.py does to a fleet, and what it looks at."""
