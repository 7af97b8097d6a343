"""What a user may say of a fleet: fleet.toml, command-line options, files of keys."""
