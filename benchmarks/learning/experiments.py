"""What is compared with what.

The model is the embedded one, a Llama of about a million parameters that starts from nothing. Within an experiment all
arms have the same tasks, seeds and sizes, and differ in what their names and the remark say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import relations

__all__ = ["EXPERIMENTS", "Arm", "Experiment"]

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Arm:
    """One way to learn.

    Attributes:
        name: As it is printed.
        env: Id of the environment.
        env_options: Its options.
        options: Those of `learning/language`.
        episodes: Episodes that may be played, demonstrations included.
        base: The imitation that it begins with; None if it begins on its own.
    """

    name: str
    env: str
    env_options: Settings
    options: Settings
    episodes: int
    base: Arm | None = None

    @property
    def steps(self) -> int:
        """Environment steps, were every episode cut off."""
        return self.episodes * int(self.options["turns"])


@dataclass(frozen=True)
class Experiment:
    """Arms that are compared.

    Attributes:
        name: Of the command.
        title: Of the table.
        remark: What its reader has to know.
        reference: The arm that the others are compared with.
        arms: The arms.
        columns: What is printed beside success: name in the metrics, title.
    """

    name: str
    title: str
    remark: str
    reference: str
    arms: tuple[Arm, ...]
    columns: Mapping[str, str] = field(default_factory=dict)


# -- TextWorld: two rooms, three objects, quests of about four commands ----------------------------------------------

_TEXTWORLD = "text/textworld-v0"
_EASY = {"game": "w2-o3-q4", "list_commands": False}
_MORE_OBJECTS = {**_EASY, "game": "w2-o12-q4"}
_TINY = {
    "tiny": {"layers": 4, "hidden": 128, "heads": 4, "key_value_heads": 4, "feed_forward": 384}
    | {"vocabulary": 1500, "context": 1024},
    "device": "cpu",
}
_SHOWN = {"batch": 4, "optimiser": "muon", "learning_rate": 8e-3, "weight_decay": 0.05}
_SHOWN |= {"observation_weight": 0.3, "renamed": 0.7}
_PLAY = {
    "model": _TINY,
    "pool": 1664,
    "turns": 8,
    "new_tokens": 20,
    "tasks": 8,
    "learning_rate": 1e-4,
    "minibatches": 2,
    "held_out": {"episodes": 200, "every": 20, "temperature": 1.0},
}
_UPDATES, _GROUP = 20, 8
_PLAYED = _UPDATES * _PLAY["tasks"] * _GROUP
_IMITATED = 384
_BOTH = _IMITATED + _PLAYED


def _imitation(name: str, episodes: int, epochs: int, **changes: Any) -> Arm:
    """Return imitation alone; `changes` are settings of the demonstrations."""
    options = {**_PLAY, "demonstrations": {**_SHOWN, "episodes": episodes, "epochs": epochs, **changes}}
    return Arm(name, _TEXTWORLD, _EASY, options, episodes)


_BASE = _imitation("textworld-base", _IMITATED, 12)


def _reinforced(
    name: str,
    algorithm: str,
    *,
    env_options: Settings = _EASY,
    base: Arm | None = _BASE,
    options: Settings | None = None,
    episodes: int = _PLAYED,
    **slots: Any,
) -> Arm:
    """Return reinforcement on games; `slots` are those of the objective."""
    objective = {"data": {"group_size": _GROUP}, "regularisers": [], **slots}
    chosen = {**_PLAY, "algorithm": algorithm, "objective": objective, **(options or {})}
    return Arm(name, _TEXTWORLD, env_options, chosen, episodes, base)


_CRITIC: dict[str, Any] = {
    "options": {"tasks": _PLAY["tasks"] * _GROUP},
    "data": {"group_size": 1},
    "returns": {"kl": 0.0},
    "regularisers": [{"kind": "value"}],
}
"""As many episodes, each of a game of its own, and values instead of comparisons."""
_DENSE = {**_EASY, "reward": "progress"}
_GRPO = _reinforced("grpo", "grpo")
_REMARK = (
    f"Games of `w2-o3-q4`. Reinforcement begins with the same imitation of {_IMITATED} games (`textworld-base`), whose "
    f"episodes are not counted again, and plays {_PLAYED} episodes of {_PLAY['pool']:,} games, those among them, in "
    f"{_UPDATES} updates of two steps, group size {_GROUP}, no divergence penalty; 200 held-out games, tokens sampled "
    "at temperature 1, as they are trained."
)

IMITATION = Experiment(
    "imitation",
    "What helps to learn from few demonstrations",
    f"Games of `w2-o3-q4`; {_IMITATED} games, 12 epochs; 200 held-out games, tokens sampled at temperature 1. Each arm "
    "differs from `textworld-base` in what it is called; `adamw` has a step size of its own (0.002), and `batch-8` "
    "takes half as many steps.",
    "textworld-base",
    (
        _BASE,
        _imitation("own-names", _IMITATED, 12, renamed=0.0),
        _imitation("adamw", _IMITATED, 12, optimiser="adamw", learning_rate=2e-3),
        _imitation("batch-8", _IMITATED, 12, batch=8),
        _imitation("expert-only", _IMITATED, 12, observation_weight=0.0),
        _imitation("slips", _IMITATED, 12, slips=0.15),
    ),
    {"held_out_turns": "turns", "imitation_loss": "loss while learning"},
)

RECIPE = Experiment(
    "recipe",
    "Imitation, reinforcement, and both",
    f"{_REMARK} At the same {_BOTH} episodes, `sft-{_BOTH}` only imitates, with 1,248 gradient steps where "
    "`textworld-base` takes 1,152, and `rl` only plays. `ppo` arms play an episode each of 64 games an update. `dense` "
    "arms are paid for progress towards the goal.",
    "textworld-base",
    (
        _BASE,
        _imitation(f"sft-{_BOTH}", _BOTH, 3),
        _reinforced("rl", "grpo", base=None, episodes=_BOTH),
        _GRPO,
        _reinforced("rloo", "rloo", returns={"kl": 0.0}),
        _reinforced("ppo", "ppo", **_CRITIC),
        _reinforced("ppo-multiturn", "ppo_multiturn", **_CRITIC),
        _reinforced("grpo-dense", "grpo", env_options=_DENSE),
        _reinforced("ppo-multiturn-dense", "ppo_multiturn", env_options=_DENSE, **_CRITIC),
    ),
    {"success": "success while learning", "held_out_turns": "turns", "entropy": "entropy"},
)

TRANSFER = Experiment(
    "transfer",
    "From few objects to many",
    "Games of `w2-o12-q4` (12 objects), held out. `first` is before anything was learned from them; then each arm "
    f"plays {_PLAYED} episodes of them. `from-grpo` begins with what `grpo` learned in games with 3 objects.",
    "hard-from-base",
    (
        _reinforced("hard-from-base", "grpo", env_options=_MORE_OBJECTS),
        _reinforced("hard-from-grpo", "grpo", env_options=_MORE_OBJECTS, base=_GRPO),
    ),
    {"first:held_out_success": "first", "success": "success while learning", "held_out_turns": "turns"},
)


def _empg(name: str, **changes: Any) -> Arm:
    return _reinforced(name, "empg", modulation=[{"kind": "empg", **changes}])


_DAPO_SIZES = {"returns": {"overlong": None}}
"""Answers of a few tokens have no use for a penalty on length."""

EMPG = Experiment(
    "empg",
    "EMPG and its controls",
    f"{_REMARK} `empg` is as published; `token-grpo` is the same without the modulation. `shuffled` deals the "
    "entropies out at random among turns; `zeta` is the weight of the bonus (0.1 as published). The last turn of an "
    "episode has no next turn and as published no bonus: in `mean` it gets the mean one, in `centred` the others' have "
    "mean 0.",
    "token-grpo",
    (
        _reinforced("token-grpo", "grpo", aggregation={"kind": "token-mean"}),
        _empg("empg"),
        _empg("empg-shuffled", shuffled=True),
        _empg("empg-mean", terminal="mean"),
        _empg("empg-centred", terminal="centred"),
        _empg("empg-zeta-0", zeta=0.0),
        _empg("empg-zeta-0.05", zeta=0.05),
        _empg("empg-zeta-0.3", zeta=0.3),
    ),
    {"success": "success while learning", "entropy": "entropy", "held_out_turns": "turns"},
)

EMPG_DAPO = Experiment(
    "empg-dapo",
    "EMPG on DAPO",
    f"{_REMARK} Under dynamic sampling an update plays up to four rounds; a training ends when the environment steps "
    "are spent that its planned episodes could have at most.",
    "dapo",
    (_reinforced("dapo", "dapo", **_DAPO_SIZES), _reinforced("empg-dapo", "empg_dapo", **_DAPO_SIZES)),
    {"success": "success while learning", "rounds": "rounds", "entropy": "entropy", "held_out_turns": "turns"},
)

# -- household: one thing to be found and put somewhere ---------------------------------------------------------------

_HOUSEHOLD = "text/alfworld-v0"
_PUT = {"task_types": ["pick_and_place_simple"]}
_AT_HOME = {**_PLAY, "pool": 256, "turns": 12}
_AT_HOME["held_out"] = {"split": "valid_unseen", "episodes": 100, "every": _UPDATES, "temperature": 1.0}
_SHOWN_AT_HOME = 256
_HOUSEHOLD_BASE = Arm(
    "household-base",
    _HOUSEHOLD,
    _PUT,
    {**_AT_HOME, "demonstrations": {**_SHOWN, "episodes": _SHOWN_AT_HOME, "epochs": 12}},
    _SHOWN_AT_HOME,
)


def _at_home(name: str, algorithm: str, **slots: Any) -> Arm:
    objective = {"data": {"group_size": _GROUP}, "regularisers": [], **slots}
    options = {**_AT_HOME, "algorithm": algorithm, "objective": objective}
    return Arm(name, _HOUSEHOLD, _PUT, options, _PLAYED, _HOUSEHOLD_BASE)


EMPG_HOUSEHOLD = Experiment(
    "empg-household",
    "EMPG on household tasks",
    "`pick_and_place_simple` in generated games of ALFWorld; all arms begin with the same imitation of "
    f"{_SHOWN_AT_HOME} shortest ways (`household-base`) and play {_PLAYED} episodes of at most 12 turns of the same "
    f"games, in {_UPDATES} updates of two steps, group size {_GROUP}, no divergence penalty; 100 games in houses never "
    "seen, tokens sampled at temperature 1. `shuffled` deals the entropies out at random among turns.",
    "household-grpo",
    (
        _HOUSEHOLD_BASE,
        _at_home("household-grpo", "grpo", aggregation={"kind": "token-mean"}),
        _at_home("household-empg", "empg"),
        _at_home("household-empg-shuffled", "empg", modulation=[{"kind": "empg", "shuffled": True}]),
    ),
    {"success": "success while learning", "entropy": "entropy", "held_out_turns": "turns"},
)

COMPARATORS = Experiment(
    "comparators",
    "GiGPO, GSPO and both",
    f"{_REMARK} All of them take the mean over episodes of the mean over tokens. `gspo` clips as published, "
    "`gspo-wide` and `gspo-gigpo` as the published combination does, ten times wider; that samples dynamically too, "
    "which is off here.",
    "grpo",
    (
        _GRPO,
        _reinforced("gigpo", "gigpo", aggregation={"kind": "sequence-mean"}),
        _reinforced("gspo", "gspo"),
        _reinforced("gspo-wide", "gspo", gate={"low": 1 - 3e-3, "high": 1 + 4e-3}),
        _reinforced("gspo-gigpo", "gspo_gigpo", data={"group_size": _GROUP, "dynamic_sampling": False}),
    ),
    {"success": "success while learning", "clipped": "clipped", "entropy": "entropy"},
)

# -- search: chains of one to three relations ------------------------------------------------------------------------

_SEARCH = "search/qa-v0"
_QUESTIONS = {"questions": relations.NAME, "topk": 1, "max_turns": 6, "max_searches": 5}
_LOOK_UP = {**_PLAY, "pool": 4000, "turns": 6, "new_tokens": 24}
_ANSWERED = 4000
_SEARCH_BASE = Arm(
    "search-base",
    _SEARCH,
    _QUESTIONS,
    {**_LOOK_UP, "demonstrations": {**_SHOWN, "episodes": _ANSWERED, "epochs": 3}},
    _ANSWERED,
)


def _searched(name: str, algorithm: str, **slots: Any) -> Arm:
    objective = {"data": {"group_size": _GROUP}, "regularisers": [], **slots}
    options = {**_LOOK_UP, "algorithm": algorithm, "objective": objective}
    return Arm(name, _SEARCH, _QUESTIONS, options, _PLAYED, _SEARCH_BASE)


def _stratified(name: str, **changes: Any) -> Arm:
    return _searched(name, "stratified_grpo", baseline=changes)


STRATIFIED = Experiment(
    "stratified",
    "Stratified GRPO on multi-hop questions",
    "Chains of one to three relations between invented people, over a corpus of 1,100 documents, one document a "
    f"search; all arms begin with the same imitation of {_ANSWERED:,} questions and then play {_PLAYED} episodes, "
    f"group size {_GROUP}, in {_UPDATES} updates of two steps; 200 held-out questions about other people, tokens "
    "sampled at temperature 1. Strata are numbers of searches; `alpha` is the share of the stratum's comparison (0.6 "
    "as published), `shuffled` deals strata out at random.",
    "search-grpo",
    (
        _SEARCH_BASE,
        _searched("search-grpo", "grpo"),
        _stratified("stratified"),
        _stratified("stratified-0.3", alpha=0.3),
        _stratified("stratified-1.0", alpha=1.0),
        _stratified("stratified-shuffled", shuffled=True),
    ),
    {
        "success": "success while learning",
        "held_out_searches": "searches",
        "held_out_support_recall": "support found",
        "singleton_strata": "singleton strata",
        "zero_variance_strata": "zero strata",
    },
)

EXPERIMENTS: Mapping[str, Experiment] = {
    one.name: one for one in (IMITATION, RECIPE, TRANSFER, EMPG, EMPG_DAPO, EMPG_HOUSEHOLD, COMPARATORS, STRATIFIED)
}
"""Every experiment by name."""
