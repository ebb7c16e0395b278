"""Episodes in a browser of this machine, to see and to edit."""
