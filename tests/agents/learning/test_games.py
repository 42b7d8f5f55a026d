"""Games of an environment that waits go on side by side, and are the same."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from arena import Limits
from arena.agents.learning._games import Game, LocalGames, Order
from arena.registry import environments

from .games import Names

WAITING = "toy/waiting-v0"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Register the game as one that waits; its calls do what the test says."""
    does: dict[str, Any] = {"meet": lambda: None}

    def meeting(name: str) -> Any:
        def call(self: Any, *given: Any) -> Any:
            does["meet"]()
            return getattr(Names, name)(self, *given)

        return call

    spec = msgspec.structs.replace(Names.spec, blocking=True)
    members = {"spec": spec, "begin": meeting("begin"), "act": meeting("act")}
    monkeypatch.setitem(environments._classes, WAITING, type("Waiting", (Names,), members))
    return does


def played(env: str) -> list[str]:
    """Play four games for two rounds, and return the digests of where they stand."""
    games = LocalGames(env, {"rounds": 3})
    begun = games.begin([Order(games.task("train", index), index) for index in range(4)], Limits())
    assert all(isinstance(game, Game) for game in begun)
    for said in ("red", "blue"):
        assert games.step([(game, f"{said} {index}") for index, game in enumerate(begun)]) == [None] * 4  # type: ignore[misc]
    digests = [game.session.journal[-1].digest for game in begun]  # type: ignore[union-attr]
    for game in begun:
        game.close()  # type: ignore[union-attr]
    games.close()
    return digests


def test_games_that_wait_go_on_side_by_side(waiting: dict[str, Any]) -> None:
    barrier = threading.Barrier(4)
    waiting["meet"] = lambda: barrier.wait(30.0)
    assert len(set(played(WAITING))) == 4


def test_games_that_wait_are_the_same_each_time_and_in_the_same_order(waiting: dict[str, Any]) -> None:
    turn = iter(range(1000))
    calm = played(WAITING)
    waiting["meet"] = lambda: threading.Event().wait(0.01 * (3 - next(turn) % 4))
    assert played(WAITING) == calm
