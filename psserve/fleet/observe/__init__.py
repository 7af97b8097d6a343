"""What a fleet looks like from outside: status, logs, and the doctor's findings."""
