"""The arena: MuJoCo scenes drawn from a seed, an omnidirectional base, and an expert driver."""
