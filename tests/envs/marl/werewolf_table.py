"""Games of Werewolf for tests, played a turn at a time."""

from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import arena

ENV = "marl/werewolf-v0"
plays = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
numbers = st.lists(st.integers(0, 10_000), min_size=1, max_size=80)
"""Arbitrary play: each number picks from what is listed."""


class Table:
    """A game, played a turn at a time."""

    def __init__(self, seed=0, setting="classic", number=0, **options):
        self.env = arena.make(ENV, {"settings": [setting], **options})
        self.now = self.env.reset(self.env.taskset("train").task(number), seed)

    @property
    def game(self):
        return self.env._game

    @property
    def due(self):
        return self.now.acting[0]

    @property
    def text(self):
        """What the player who is to act is shown."""
        return self.now.seats[self.due].observation

    @property
    def listed(self):
        return self.now.seats[self.due].legal_actions

    def who(self, role):
        """Return the players with a role, in the order of turns."""
        return [player for player in self.game.order if self.game.roles[player] == role]

    def do(self, action):
        self.now = self.env.step({self.due: action})
        return self.now

    def phase(self, choose):
        """Play a phase: `choose` returns the action of a player, None for the last one that is listed."""
        shown, players = {}, list(self.game.due)
        for player in players:
            assert self.due == player
            shown[player] = self.text
            self.do(choose(player) or self.listed[-1])
        return shown

    def night(self, kill, protect=None, inspect=None):
        verbs = {"werewolf": ("kill", kill), "doctor": ("protect", protect), "seer": ("inspect", inspect)}

        def choose(player):
            verb, target = verbs.get(self.game.roles[player], ("", None))
            return f"{verb} {target}" if target else None

        return self.phase(choose)

    def talk(self, **said):
        return self.phase(lambda player: f"say {said[player]}" if player in said else "pass")

    def talk_as_experts(self):
        return self.phase(lambda player: self.env.expert_action(player))

    def vote(self, ballots):
        return self.phase(lambda player: f"vote {ballots[player]}" if ballots.get(player) else "abstain")


def played(table, choose):
    """Play to the end and return each seat's last step."""
    last = {}
    while table.now.acting:
        table.do(choose(table))
        last |= {agent: step for agent, step in table.now.seats.items() if step.is_last}
    return last


def dealt(roles, setting="classic", **options):
    """Return a table where these players have these roles, with the smallest seed that deals so."""
    for seed in count():
        table = Table(seed, setting, **options)
        if all(table.game.roles[player] == role for player, role in roles.items()):
            return table
