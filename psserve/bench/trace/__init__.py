"""Where the time of a request goes: spans from the servers' own clocks, shown as a waterfall or exported."""
