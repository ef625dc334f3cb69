"""Where strips and photos come from."""
