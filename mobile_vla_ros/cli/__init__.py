"""The command `mobile_vla`: one module a subcommand."""
