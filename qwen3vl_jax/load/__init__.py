"""Reading a checkpoint: safetensors or Orbax, a folder or a name on the hub."""
