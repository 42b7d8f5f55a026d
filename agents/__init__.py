"""Arena's agents: who plays and who learns, found by id through the registry."""
