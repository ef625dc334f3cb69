"""A run folder: settings, records, numbers."""
