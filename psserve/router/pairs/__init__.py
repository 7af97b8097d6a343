"""A sequence on a pair of servers: dispatch, retries, and checks that servers are healthy."""
