"""Which nodes belong together, told once: for the launch files and for ``mobile_vla demo``."""
