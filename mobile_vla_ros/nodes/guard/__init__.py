"""The guard: every command on its way to the wheels passes here."""
