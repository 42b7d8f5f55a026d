"""Two games with two seats, registered so that a server's workers find them."""

from arena import register
from tests.arena.games import Match, Nim

register(
    "play/nim-v0",
    summary="Take the last stone.",
    endings={"won": "termination", "lost": "termination"},
    reward_range=(-1.0, 1.0),
    play="turns",
    legal_actions="all",
    seeded=False,
    splits=("test",),
)(type("PlayNim", (Nim,), {"__module__": __name__, "__doc__": Nim.__doc__}))

register(
    "play/match-v0",
    summary="Choose alike.",
    endings={"done": "termination"},
    reward_range=(0.0, 1.0),
    play="simultaneous",
    shared_reward=True,
    splits=("test",),
)(type("PlayMatch", (Match,), {"__module__": __name__, "__doc__": Match.__doc__}))
