"""What the router tells of itself: metrics of sequences, log lines, traces, and the servers' metrics on one page."""
