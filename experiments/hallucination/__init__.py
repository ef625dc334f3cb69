"""`gaze hallucination`: POPE and CHAIR on a checkpoint, by arms."""
