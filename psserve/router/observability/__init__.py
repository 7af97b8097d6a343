"""What the router tells of itself: metrics of sequences, one log line a request, traces, the servers' metrics merged."""
