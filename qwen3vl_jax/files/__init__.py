"""Files: the one place where what others wrote is opened, and where ours are written whole."""
