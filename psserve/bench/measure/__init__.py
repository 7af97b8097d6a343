"""One measured run, and what it is sent to."""
