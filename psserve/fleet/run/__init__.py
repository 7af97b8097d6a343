"""Starting servers and knowing them: processes, logs, the state file, the HTTP client to the router."""
