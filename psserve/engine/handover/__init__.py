"""The hand-over of a prompt from the base to a module: whose KV is it, and which hook keeps it so."""
