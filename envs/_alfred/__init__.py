"""The household of ALFRED: its game files read, played, solved and made; `text/alfworld-v0` is played in it."""
