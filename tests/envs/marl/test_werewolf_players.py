"""Who plays Werewolf: experts, line-ups of all kinds, PettingZoo's players, a person."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from itertools import count

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import arena
from arena import ConfigError, Session, UnknownIdError, UnsupportedError, stream
from arena.envs.marl._werewolf_rules import NAMES, SETTINGS, team
from arena.intervals import rate_interval
from arena.runner import plan
from arena.scenario import validate_scenario
from arena.testing import check_env
from arena.trace import read_episodes
from arena.views.pettingzoo import view
from tests.agents.chat_server import Answer, ChatServer

from .werewolf_table import ENV, Table, numbers, plays

ARENA = [sys.executable, "-W", "error", "-c", "from arena.cli import main; main()"]


# -- the experts -------------------------------------------------------------------------------------------------------


def village_wins(village, werewolves, games, players=7, setting="classic"):
    """Return the 95% interval of the village's share of victories; a team is ``random`` or a kind of expert."""
    env, won = arena.make(ENV, {"players": players, "settings": [setting]}), []
    tasks = env.taskset("train")
    for number in range(games):
        rng, now = stream(number, "policy"), env.reset(tasks.task(number), number)
        while now.acting:
            (agent,) = now.acting
            kind = village if team(env._game.roles[agent]) == "village" else werewolves
            listed = now.seats[agent].legal_actions
            drawn = listed[int(rng.integers(len(listed)))] if kind == "random" else None
            now = env.step({agent: drawn or env.expert_action(agent, kind)})
        won.append(env._game.winner == "village")
    return rate_interval(won, range(games))


def test_teams_of_experts_beat_teams_that_play_at_random_on_both_sides():
    pairs = [("talking", "random"), ("silent", "random"), ("random", "random"), ("random", "talking")]
    best, good, chance, worst = (village_wins(*pair, games=500) for pair in pairs)
    assert best[0] > 0.7
    assert best[0] > good[1]
    assert good[0] > chance[1]
    assert chance[0] > worst[1]
    assert worst[1] < 0.05


@pytest.mark.parametrize("village", ["talking", "silent"])
def test_werewolves_that_are_experts_beat_random_ones_against_the_same_village(village):
    expert, chance = (village_wins(village, pack, games=500) for pack in ("talking", "random"))
    assert expert[1] < chance[0]


@pytest.mark.parametrize("players", [5, 9])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_village_that_talks_beats_chance_in_every_setting(players, setting):
    talking, chance = (village_wins(kind, "random", 100, players, setting) for kind in ("talking", "random"))
    assert talking[0] > chance[1]


@plays
@given(
    numbers,
    st.integers(0, 30),
    st.sampled_from(sorted(SETTINGS)),
    st.integers(5, 9),
    st.lists(
        st.sampled_from(
            ["I am the seer.", "I am the doctor.", "I'm the seer. I am the doctor", "I suspect {}.", "{} is a werewolf",
             "{} is not a werewolf. I am the seer.", "i am the SEER; {} IS A WEREWOLF!", "\U0001f43a {} {}"]
        ),
        min_size=1,
        max_size=20,
    ),
)  # fmt: skip
def test_experts_find_a_legal_move_whatever_the_others_do_and_say(picks, seed, setting, players, sentences):
    table, pick, said = Table(seed, setting, players=players), iter(picks * 1000), iter(sentences * 1000)
    while table.now.acting:
        number = next(pick)
        for kind in table.env.spec.experts:
            action = table.env.expert_action(table.due, kind)
            assert action in table.listed or (table.game.phase == "talk" and action.startswith("say "))
        name = NAMES[number % players]
        if table.game.phase == "talk" and number % 3:
            table.do(f"say {next(said).replace('{}', name)}")
        else:
            table.do(action if number % 3 == 1 else table.listed[number % len(table.listed)])


def test_the_seer_tells_what_it_has_found_and_the_village_acts_on_it():
    table = Table()
    (seer,), wolf, victim = table.who("seer"), table.who("werewolf")[0], table.who("villager")[0]
    table.night(kill=victim, inspect=wolf)
    shown = table.talk_as_experts()
    assert f'{seer} says: "I am the seer. {wolf} is a werewolf."' in "".join(shown.values()) + table.text
    table.phase(lambda player: table.env.expert_action(player))
    assert table.game.out[wolf] == "voted_out"


def test_findings_that_somebody_else_writes_are_read_too():
    table = Table()
    (seer,), wolf, victim = table.who("seer"), table.who("werewolf")[0], table.who("villager")[0]
    table.night(kill=victim, inspect=wolf)
    table.talk(
        **{seer: f"Friends, I'm the seer!! I looked at {wolf.upper()}, and {wolf.title()} is a werewolf, I swear"}
    )
    voters = [player for player in table.game.living if player != wolf]
    assert all(table.env.expert_action(player) == f"vote {wolf}" for player in [table.due] if player in voters)
    table.phase(lambda player: table.env.expert_action(player))
    assert table.game.out[wolf] == "voted_out"


def test_a_false_seer_is_found_out_by_the_true_one_and_by_roles_that_are_shown():
    table = Table(players=9)
    (seer,), (doctor,), (liar, _) = map(table.who, ("seer", "doctor", "werewolf"))
    one, other, *rest = table.who("villager")
    table.night(kill=one, inspect=liar)
    table.talk(**{liar: f"I am the seer. {other} is a werewolf."})
    votes = {}
    table.phase(lambda player: votes.setdefault(player, table.env.expert_action(player)))
    assert (votes[seer], votes[doctor], votes[rest[0]]) == (f"vote {liar}", f"vote {other}", f"vote {other}")
    assert table.game.out[other] == "voted_out"
    table.night(kill=doctor, protect=seer)
    table.talk()
    table.phase(lambda player: votes.setdefault(f"{player} then", table.env.expert_action(player)))
    assert {votes[f"{player} then"] for player in (seer, *rest)} == {f"vote {liar}"}


def test_the_silent_expert_never_speaks():
    table = Table(3)
    while table.now.acting:
        assert not table.env.expert_action(table.due, "silent").startswith("say")
        table.do(table.env.expert_action(table.due))


def test_an_expert_is_asked_when_its_seat_is_to_act_only():
    table = Table()
    for player in table.game.order:
        if player != table.due:
            with pytest.raises(UnsupportedError, match=f"{player} is not to act"):
                table.env.expert_action(player)


# -- the contract and its views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("players", [5, 9])
def test_other_tables_keep_the_contract(players):
    check_env(ENV, options={"players": players}, seeds=(0, 1), max_steps=30).raise_if_failed()


@pytest.mark.parametrize(
    "options",
    [{"players": 4}, {"players": 10}, {"settings": []}, {"settings": ["classic", "classic"]}, {"max_days": 0}],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError):
        arena.make(ENV, options)


def test_a_task_of_other_options_is_refused():
    env = arena.make(ENV, {"settings": ["hidden"]})
    with pytest.raises(UnknownIdError, match="no task 'classic-0'"):
        env.reset(arena.make(ENV).taskset("train").task(0), 0)


def test_in_pettingzoo_the_last_observation_holds_all_that_a_seat_may_know_and_the_dead_leave():
    def begin(seed):
        session = Session(arena.make(ENV), arena.make(ENV).taskset("train").task(0), seed)
        session.open()
        return session

    table = Table(5)
    seen = view(table.env.spec, {agent: table.env.seat(agent) for agent in table.env.possible_agents}, begin)
    courses = []
    for _ in range(2):
        table, course = Table(5), []
        seen.reset(seed=5)
        for agent in seen.agent_iter(max_iter=1000):
            observation, reward, terminated, truncated, _ = seen.last()
            course.append((agent, observation, reward, terminated, truncated))
            if terminated or truncated:
                seen.step(None)
                assert agent not in seen.agents
                continue
            assert (agent, observation) == (table.due, table.text)
            action = table.env.expert_action(agent)
            table.do(action)
            seen.step(action)
        assert seen.agents == []
        courses.append(course)
    assert courses[0] == courses[1]
    ended = {agent: reward for agent, _, reward, terminated, _ in courses[0] if terminated}
    assert ended == {agent: table.env.score().seats[agent] * (agent in table.game.living) for agent in table.game.order}


# -- who plays ---------------------------------------------------------------------------------------------------------

SCENARIO = """
name: mixed
env: {id: marl/werewolf-v0, options: {players: 6, settings: [classic]}}
agents:
  mixed:
    seats:
      ada: {id: chat, options: {model: fake, base_url: URL, api_key_env: null}}
      ben: {id: scripted, options: {actions: [sleep, "say I only follow my script.", abstain], then: repeat}}
      cleo: {id: random}
      dan: {id: expert}
      eva: {id: expert, options: {kind: silent}}
      finn: {id: chat, options: {model: fake, base_url: URL, api_key_env: null}}
tasks: {split: train, ids: [classic-0]}
episodes: 1
seeds: [SEED]
metrics: [days, messages]
"""


def as_a_model(request):
    """Answer as a model that reads the last message: it speaks where it may, and else takes what is listed first."""
    last = request["messages"][-1]["content"]
    if "It is your turn to speak" in last:
        return Answer("say I am only a fake model, and I suspect nobody.")
    return Answer(last.rpartition("Legal actions: ")[2].split(", ")[0])


def test_chat_script_chance_and_experts_play_at_one_table(tmp_path):
    seed = next(seed for seed in count() if planned_roles(seed)["ben"] == "villager")
    with ChatServer(model=as_a_model) as server:
        (tmp_path / "mixed.yaml").write_text(SCENARIO.replace("URL", server.url).replace("SEED", str(seed)))
        done = subprocess.run(
            [*ARENA, "run", "mixed.yaml", "--out", "out"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        asked = [request for request in server.requests if request.path.endswith("/chat/completions")]
    assert done.returncode == 0, done.stdout + done.stderr
    (episode,) = read_episodes(tmp_path / "out/traces.jsonl")
    assert (episode.end.error, episode.end.refused) == (None, 0)
    actions = [action for step in episode.steps[1:] for action in step.actions.items()]
    assert len(asked) == sum(agent in ("ada", "finn") for agent, _ in actions) > 2
    assert {"say I am only a fake model, and I suspect nobody."} <= {action for _, action in actions}
    said = [step.time_step.seats[agent].observation for step in episode.steps for agent in step.time_step.acting]
    assert any('ben says: "I only follow my script."' in text for text in said)
    for request in asked:
        system = request.messages[0]["content"]
        player = re.match(r"You are (\w+) in a game of Werewolf", system)[1]
        assert f"You are {player}. Your role: " in request.messages[1]["content"]
        assert len(re.findall("Your role: ", str(request.messages))) == 1


def planned_roles(seed):
    text = SCENARIO.replace("URL", "http://127.0.0.1:9/v1").replace("SEED", str(seed))
    (planned,) = plan(validate_scenario(yaml.safe_load(text), "mixed").resolve())
    env = arena.make(ENV, {"players": 6, "settings": ["classic"]})
    env.reset(planned.task, planned.seed)
    return env._game.roles


def test_a_person_plays_at_a_terminal():
    """Whoever types the first action that is listed plays a whole game, and nobody else's role is on the screen."""
    others = [word for name in NAMES[1:5] for word in ("--seat", f"{name}=expert")]
    command = [*ARENA, "play", ENV, *others, "--set", "env.options.players=5", "--seed", "4"]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "dumb"}, start_new_session=True
    )
    os.close(slave)
    try:
        shown = type_along(master, process)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert "you play ada" in shown
    assert shown.count("Your role: ") == 1
    assert re.search(r"It ended: (killed|voted_out|won|lost)", shown)
    assert re.search(r" after \d+ steps, score [01]", shown)


def type_along(master, process):
    """Type the first listed action at each prompt until the game is over; return all that was shown."""
    shown, answered, deadline = "", 0, time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                shown += os.read(master, 4096).decode()
            except OSError:  # Linux: the other side is closed
                return shown
        elif process.poll() is not None:
            return shown
        if shown.endswith("> ") and len(shown) > answered:
            first = shown.rpartition("Legal: ")[2].splitlines()[0].split(", ")[0].strip()
            answered = len(shown) + len(first) + 1
            os.write(master, f"{first}\n".encode())
    raise AssertionError(f"the game did not end: {shown}")
