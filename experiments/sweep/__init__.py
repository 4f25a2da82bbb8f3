"""`sublab sweep`: variations of the toy from files and presets, on any executor."""
