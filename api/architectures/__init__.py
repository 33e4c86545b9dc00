"""Model YAMLs over HTTP: checked and planned without torch."""
