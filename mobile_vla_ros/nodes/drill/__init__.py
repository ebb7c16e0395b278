"""Nodes of the drill: a rig that injects faults and watches the base stop."""
