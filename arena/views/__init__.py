"""Sessions, in process or remote, as Gymnasium and PettingZoo environments."""
