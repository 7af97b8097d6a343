"""The demo zoo: a base pretrained from seeds, tasks for its modules, and the table of their accuracy."""
