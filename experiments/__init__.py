"""The commands, the testbed, and what it all shows."""
