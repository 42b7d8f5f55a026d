"""Two tiny games with several seats, for tests: one played at once, one in turns."""

from gymnasium.spaces import Discrete

from arena import (
    Environment,
    EnvSpec,
    FreeText,
    Score,
    SeatSpec,
    Task,
    Taskset,
    TimeStep,
    UnknownIdError,
    restart,
    stream,
    termination,
    transition,
)


class OneTask(Taskset):
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 1

    def task(self, index):
        return Task(f"only-{self.split}", self.split)


def refuse_foreign(task):
    if task != OneTask("test").task(0):
        raise UnknownIdError(f"no task {task.id!r}")


class Match(Environment):
    """Both choose 0 or 1 at once, three times; equal choices pay both. A public coin comes before each round."""

    spec = EnvSpec(
        id="test/match-v0",
        summary="Choose alike.",
        endings={"done": "termination"},
        reward_range=(0.0, 1.0),
        play="simultaneous",
        shared_reward=True,
        splits=("test",),
    )
    possible_agents = ("left", "right")

    def seat(self, agent):
        return SeatSpec(Discrete(2), Discrete(2))

    def taskset(self, split):
        return OneTask(split)

    def reset(self, task, seed):
        refuse_foreign(task)
        self.rng, self.round, self.paid = stream(seed, "env"), 0, 0.0
        coin = int(self.rng.integers(2))
        return TimeStep({agent: restart(coin) for agent in self.possible_agents}, self.possible_agents)

    def step(self, actions):
        reward = float(actions["left"] == actions["right"])
        self.round, self.paid = self.round + 1, self.paid + reward
        coin = int(self.rng.integers(2))
        if self.round == 3:
            return TimeStep({agent: termination(coin, reward, ending="done") for agent in self.possible_agents})
        return TimeStep({agent: transition(coin, reward) for agent in self.possible_agents}, self.possible_agents)

    def score(self):
        return Score(self.paid / 3, None, seats={agent: self.paid / 3 for agent in self.possible_agents})


class Nim(Environment):
    """Take one or two of seven stones in turn; who takes the last wins. Each seat is told only its own last move."""

    spec = EnvSpec(
        id="test/nim-v0",
        summary="Take the last stone.",
        endings={"won": "termination", "lost": "termination"},
        reward_range=(-1.0, 1.0),
        play="turns",
        legal_actions="all",
        seeded=False,
        splits=("test",),
    )
    possible_agents = ("first", "second")

    def seat(self, agent):
        return SeatSpec(FreeText(100), Discrete(2, start=1))

    def taskset(self, split):
        return OneTask(split)

    def reset(self, task, seed):
        refuse_foreign(task)
        self.stones, self.turn, self.own = 7, 0, dict.fromkeys(self.possible_agents, 0)
        self.winner = None
        seats = {agent: restart(self.text(agent), legal_actions=(1, 2)) for agent in self.possible_agents}
        return TimeStep(seats, ("first",))

    def text(self, agent):
        return f"{self.stones} stones; you took {self.own[agent]}"

    def step(self, actions):
        ((mover, taken),) = actions.items()
        self.stones -= taken
        self.own[mover] = taken
        self.turn += 1
        if self.stones == 0:
            self.winner = mover
            return TimeStep(
                {
                    agent: termination(self.text(agent), 1.0, ending="won")
                    if agent == mover
                    else termination(self.text(agent), -1.0, ending="lost")
                    for agent in self.possible_agents
                }
            )
        legal = (1, 2) if self.stones > 1 else (1,)
        seats = {agent: transition(self.text(agent), 0.0, legal_actions=legal) for agent in self.possible_agents}
        return TimeStep(seats, (self.possible_agents[self.turn % 2],))

    def score(self):
        return Score(
            float(self.stones == 0), None, seats={agent: float(agent == self.winner) for agent in self.possible_agents}
        )
