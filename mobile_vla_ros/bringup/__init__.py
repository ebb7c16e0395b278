"""Which nodes belong together, defined once for the launch files and ``mobile_vla demo``."""
