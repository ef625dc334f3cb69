"""How often `gaze diagnose` is right: on models made to have gaze heads or none, and in simulation at published figures."""
