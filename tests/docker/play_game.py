"""Plays a TextWorld game, or a part of one, against the server at 127.0.0.1:8700: a program of its own, because it has
to run in the container's network namespace.

Standard input: ``{"token": ..., "capability": null or a session's, "steps": null or how many to take}``. Standard
output: the session's capability, the number of steps so far, and the score where the game is over.
"""

import json
import sys

from arena.client import connect

TASK = {"task": "w2-o3-q4_110007", "split": "test", "options": {"game": "w2-o3-q4"}}


def play(token, capability, steps):
    with connect("http://127.0.0.1:8700", token=token) as client:
        session = client.attach(capability) if capability else client.session("text/textworld-v0", seed=7, **TASK)
        taken = 0
        while session.acting and taken != steps:
            session.act(session.expert_action("player"))
            taken += 1
        score = None if session.acting else session.end().score.value
        return {"capability": session.capability, "steps": len(session.journal) - 1, "score": score}


if __name__ == "__main__":
    json.dump(play(**json.load(sys.stdin)), sys.stdout)
