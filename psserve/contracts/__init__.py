"""What two packages must agree on: the router's configuration and view of servers, keys, limits, addresses, TLS."""
