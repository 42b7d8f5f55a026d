"""More environments for the server's tests: a worker imports this module beside `tests.arena.served`."""

import os
import signal
import time
from pathlib import Path

from arena.env import Environment, SeatSpec
from arena.registry import register
from arena.seeding import stream
from arena.spaces import FreeText
from arena.types import Score, Task, TimeStep, restart, termination, transition
from tests.arena import games
from tests.arena.served import Echo, EchoOptions, Odd, OneTask


@register("test/nap-v0", summary="Takes its time.", endings={"enough": "termination"}, reward_range=(0.0, 1.0))
class Nap(Echo):
    """``nap`` takes a second and a half."""

    def act(self, action):
        if action == "nap":
            time.sleep(1.5)
        return super().act(action)


@register(
    "test/whispers-v0",
    summary="Everybody is told a secret of his own.",
    endings={"done": "termination"},
    reward_range=(0.0, 1.0),
    play="simultaneous",
)
class Whispers(Environment):
    """Three seats act at once, four times. What a seat is told holds its secret; what it says is nobody else's."""

    possible_agents = ("red", "green", "blue")

    def seat(self, agent):
        return SeatSpec(FreeText(), FreeText(), instructions=f"The instructions of {agent}.")

    def taskset(self, split):
        return OneTask(split)

    def reset(self, task: Task, seed: int) -> TimeStep:
        self._rng, self._round = stream(seed, "env"), 0
        return TimeStep({agent: restart(self._secret(agent)) for agent in self.possible_agents}, self.possible_agents)

    def step(self, actions):
        self._round += 1
        told = {agent: f"{self._secret(agent)} heard {actions[agent]}" for agent in self.possible_agents}
        if self._round == 4:
            return TimeStep({agent: termination(text, 1.0, ending="done") for agent, text in told.items()})
        seats = {agent: transition(text, 0.0, whisper=f"info-{agent}") for agent, text in told.items()}
        return TimeStep(seats, self.possible_agents)

    def score(self):
        return Score(1.0)

    def _secret(self, agent):
        return f"secret-of-{agent}-{self._rng.integers(10**12)}"


# -- environments that wait -------------------------------------------------------------------------------------------


class WaiterOptions(EchoOptions):
    folder: str = ""
    """Where `Waiter` looks for files, and leaves some."""


@register(
    "test/waiter-v0",
    summary="Waits for files.",
    endings={"enough": "termination"},
    reward_range=(0.0, 1.0),
    snapshots=True,
    expert=True,
    blocking=True,
)
class Waiter(Echo):
    """Says how often it has been told what.

    ``wait NAME`` leaves the file ``NAME.waits`` and returns once there is the file NAME, ``meet NAME N`` once N have
    said so; ``nap`` takes its time, ``die`` ends the process, ``exit`` would end the thread. Closing leaves a file
    ``closed-N``, where N is the number of steps.
    """

    Options = WaiterOptions

    def begin(self, task, seed):
        self._told = []
        return super().begin(task, seed)

    def act(self, action):
        folder, (what, *words) = Path(self.options.folder), action.split()
        if what == "wait":
            (folder / f"{words[0]}.waits").touch()
            _await((folder / words[0]).exists)
        if what == "meet":
            (folder / words[0]).mkdir(exist_ok=True)
            (folder / words[0] / str(id(self))).touch()
            _await(lambda: len(list((folder / words[0]).iterdir())) >= int(words[1]))
        if what == "nap":
            time.sleep(0.2)
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            raise SystemExit("told to")
        self._told.append(action)
        return super().act(f"{len(self._told)}: {action}")

    def expert_action(self, agent, kind=None):
        return f"step {len(self._told) + 1}"

    def snapshot(self):
        return self._left, list(self._told)

    def restore(self, state):
        self._left, self._told = state[0], list(state[1])

    def close(self):
        if self.options.folder and hasattr(self, "_told"):
            (Path(self.options.folder) / f"closed-{len(self._told)}").touch()


def _await(condition):
    deadline = time.monotonic() + 60.0
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited for 60 s")
        time.sleep(0.01)


def _apart(id, cls):
    """Register an environment that does not wait as one that does: what is asked of it must be answered alike."""
    declared = {name: getattr(cls.spec, name) for name in cls.spec.__struct_fields__ if name not in ("id", "blocking")}
    register(id, blocking=True, **declared)(type(cls.__name__, (cls,), {"__module__": __name__}))


_apart("test/apart-echo-v0", Echo)
_apart("test/apart-odd-v0", Odd)
_apart("test/apart-match-v0", games.Match)
_apart("test/apart-nim-v0", games.Nim)
