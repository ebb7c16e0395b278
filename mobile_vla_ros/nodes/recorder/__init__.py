"""The recorder: images and commands into episodes."""
