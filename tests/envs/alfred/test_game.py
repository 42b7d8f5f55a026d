"""Game files and what is wrong with them; episodes, forks, several agents, threads and memory."""

import gc
import json
import os
import random
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena import ConfigError
from arena.envs._alfred.game import Play, load_game

pytest.importorskip("alfworld", reason="the extra alfworld is not installed")

from arena.envs._alfred.houses import furnish, game_of, problem_text
from tests.envs.alfred.differential import HOT, House, changed, domain, grammar, kitchen, write_game

WIN = (
    *("go to countertop 2", "take apple 2 from countertop 2", "go to microwave 1", "heat apple 2 with microwave 1"),
    *("examine apple 2", "inventory"),
)


@pytest.fixture
def game(tmp_path):
    return load_game(write_game(tmp_path, kitchen().problem(HOT), walkthrough=list(WIN[:4])))


def cases(files):
    """Return what `parametrize` wants to know about these files."""
    return [pytest.param(content, id=name) for name, content in files.items()]


def data(**changes):
    """A game file's content."""
    whole = {"pddl_domain": domain(), "grammar": grammar(), "pddl_problem": kitchen().problem(HOT)}
    return whole | changes


def refusal(path):
    """Return what is said about a file that is no game; it must be one line that names the file."""
    with pytest.raises(ConfigError) as refused:
        load_game(path)
    text = str(refused.value)
    assert text.isprintable(), text
    assert str(path) in text
    assert len(text) < 1000
    return text


def refused(folder, content):
    path = folder / "game.tw-pddl"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return refusal(path)


def transcript(play, commands):
    said = [(play.begin(), play.commands(), play.won)]
    return said + [(play.act(command), play.commands(), play.won) for command in commands]


def random_transcript(play, seed, steps=40):
    rng = random.Random(seed)
    said = [play.begin()]
    for _ in range(steps):
        command = rng.choice((*play.commands(), "nonsense"))
        said.append((command, play.act(command), play.commands(), play.won))
    return said


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_game_is_read(game):
    assert game.agents == ("agent1",)
    assert game.names["apple_bar_1"] == "apple 2"
    assert game.types["fridge_bar_1"] == "receptacle"
    assert game.walkthrough == WIN[:4]


def test_a_missing_file_and_a_folder_are_no_games(tmp_path):
    assert "No such file" in refusal(tmp_path / "nothing.tw-pddl")
    assert "directory" in refusal(tmp_path)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refusal(tmp_path / "pipe")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "game.tw-pddl"
    with path.open("wb") as file:
        file.truncate(10**10)
    assert "bytes" in refusal(path)


FOREIGN = {
    "empty": b"",
    "blank": b" \n",
    "binary": bytes(range(256)) * 10,
    "not UTF-8": json.dumps(data()).encode().replace(b"house", b"h\xf4use"),
    "a story file": b"\x08\x00\x00\x01",
    "PDDL": b"(define (problem p))",
    "a list": b"[1, 2, 3]",
    "a text": b'"game"',
    "a number": b"1",
    "null": b"null",
    "an empty object": b"{}",
    "a game of TextWorld": b'{"version": 1, "world": [], "grammar": {}, "quests": [], "infos": [], "KB": {}}',
    "deeply nested": b"[" * 100_000,
    "deeply nested and closed": b"[" * 100_000 + b"]" * 100_000,
    "a number with many digits": b'{"pddl_domain": ' + b"9" * 100_000 + b"}",
    "two objects": json.dumps(data()).encode() * 2,
}


@pytest.mark.parametrize("content", cases(FOREIGN))
def test_foreign_files_are_refused(tmp_path, content):
    refused(tmp_path, content)


@pytest.mark.parametrize("key", ["pddl_domain", "grammar", "pddl_problem"])
@pytest.mark.parametrize("value", [None, 1, [], {}, True, "", "()", ")(", "\ud800", "é"])
def test_a_part_that_is_missing_or_odd_is_refused(tmp_path, key, value):
    if value is None:
        content = {name: text for name, text in data().items() if name != key}
        assert repr(key) in refused(tmp_path, content)
    assert key in refused(tmp_path, data(**{key: value}))


@pytest.mark.parametrize("walkthrough", ["look", 1, {"look": 1}, [1], [["look"]], [None]])
def test_an_odd_walkthrough_is_refused(tmp_path, walkthrough):
    assert "walkthrough" in refused(tmp_path, data(walkthrough=walkthrough))


def test_a_game_without_a_walkthrough_can_be_played(tmp_path):
    for number, content in enumerate((data(), data(walkthrough=None))):
        path = tmp_path / f"{number}.tw-pddl"
        path.write_text(json.dumps(content))
        assert load_game(path).walkthrough == ()


def problem(*facts, goal=HOT, house=None):
    house = house or kitchen()
    for fact in facts:
        house.fact(*fact.split())
    return house.problem(goal)


def deep(formula, depth):
    return "(not " * depth + formula + ")" * depth


WRONG_PROBLEMS = {
    "unknown predicate": problem("isblue apple_bar_1"),
    "unknown object": problem("ishot apple_bar_9"),
    "too many terms": problem("ishot apple_bar_1 apple_bar_2"),
    "too few terms": problem("ishot"),
    "a nested fact": problem("ishot (apple_bar_1)"),
    "unknown predicate in the goal": problem(goal="(isblue apple_bar_1)"),
    "unknown object in the goal": problem(goal="(ishot apple_bar_9)"),
    "unknown variable in the goal": problem(goal="(ishot ?x)"),
    "a number in the goal": problem(goal="(= (distance loc_bar_a loc_bar_b) 3)"),
    "an operator in the goal": problem(goal="(xor (ishot apple_bar_1) (ishot apple_bar_2))"),
    "a quantifier without variables": problem(goal="(exists (ishot apple_bar_1))"),
    "a goal that is nested too deep": problem(goal=deep(HOT, 5000)),
    "no goal": problem().replace("(:goal", "(:metric"),
    "two conditions as a goal": problem(goal=f"{HOT} {HOT}"),
    "no agent": problem().replace("agent1 - agent", "agent1 - object"),
    "another domain": problem().replace(":domain alfred", ":domain blocks"),
    "an unknown section": problem().replace("(:goal", "(:dreams) (:goal"),
    "cut off": problem()[:-1],
    "one bracket too many": problem() + ")",
    "a type without a name": problem().replace("- agent\n", "-\n", 1),
    "not ASCII": problem().replace("window_bar_1", "fenêtre_bar_1"),
}


@pytest.mark.parametrize("text", cases(WRONG_PROBLEMS))
def test_wrong_problems_are_refused(tmp_path, text):
    assert "pddl_problem" in refused(tmp_path, data(pddl_problem=text))


def ruled(*changes):
    return changed(domain(), *changes)


def help_that(precondition="()", effect="(checked ?a)"):
    return ruled(
        (
            "(:action help\n    :parameters (?a - agent)\n    :precondition\n        ()\n    :effect\n        (and\n"
            "            (checked ?a)\n        )\n)",
            f"(:action help :parameters (?a - agent) :precondition {precondition} :effect {effect})",
        )
    )


WRONG_DOMAINS = {
    "unknown predicate": help_that("(isblue ?a)"),
    "unknown predicate as effect": help_that(effect="(isblue ?a)"),
    "unknown variable": help_that("(checked ?b)"),
    "unknown variable as effect": help_that(effect="(checked ?b)"),
    "a list instead of a variable": help_that("(= (checked ?a) ?a)"),
    "an effect for all": help_that(effect="(forall (?b - agent) (checked ?b))"),
    "an effect if an effect": help_that(effect="(when (checked ?a) (when (checked ?a) (checked ?a)))"),
    "an effect that is an alternative": help_that(effect="(or (checked ?a) (checked ?a))"),
    "too deep": help_that(deep("(checked ?a)", 5000)),
    "derived facts": ruled(("(:action help", "(:derived (full ?r - receptacle) (opened ?r)) (:action help")),
    "an action without a name": ruled(("(:action help", "(:action")),
    "a keyword without a value": help_that(effect=""),
    "no actions": domain()[: domain().index("(:action look")] + ")",
    "a problem": kitchen().problem(HOT),
}


@pytest.mark.parametrize("text", cases(WRONG_DOMAINS))
def test_wrong_domains_are_refused(tmp_path, text):
    assert "pddl_domain" in refused(tmp_path, data(pddl_domain=text))


def texted(*changes):
    return changed(grammar(), *changes)


def doubled(depth):
    """A rule whose text is two of another rule's, and so on: 2 ** depth copies of the last one's."""
    rules = {f"r{level}": [{"rhs": f"#r{level + 1}##r{level + 1}#"}] for level in range(depth)}
    return f'grammar :: """{json.dumps(rules | {f"r{depth}": [{"rhs": "{a.name}"}]})}""";' + texted(
        ("You are not carrying anything.", "#r0#")
    )


WRONG_GRAMMARS = {
    "an action is missing": texted(("action help {", "action helpme {")),
    "a template is missing": texted(('template :: "help";', "")),
    "the first text is missing": texted(('"intro"', '"outro"')),
    "a rule is missing": texted(('"list_empty"', '"list_full"')),
    "a rule that leads to itself": texted(("You close the {r.name}.", "#CloseObject.feedback#")),
    "rules that lead to each other": texted(
        ("You close the {r.name}.", "#a#"), ('"task": [', '"a": [{"rhs": "#b#"}], "b": [{"rhs": "#a#"}], "task": [')
    ),
    "a rule without alternatives": texted(('"task": [', '"empty": [], "task": [')),
    "a rule that is no list": texted(('"task": [', '"empty": 1, "task": [')),
    "an alternative without a text": texted(('"rhs": "TODO"', '"lhs": "TODO"')),
    "a condition that is none": texted(('"condition": "holdsany(a:agent)"', '"condition": "holdsany a"')),
    "a condition that is no text": texted(('"condition": "holdsany(a:agent)"', '"condition": 1')),
    "rules that are no JSON": texted(('"rhs": "TODO"', '"rhs": TODO')),
    "rules that are nested too deep": texted(('"rhs": "TODO"', f'"rhs": {"[" * 100_000}')),
    "an unknown variable": texted(("You close the {r.name}.", "You close the {door.name}.")),
    "an unknown attribute": texted(("You close the {r.name}.", "You close the {r.desc}.")),
    "a call": texted(("You close the {r.name}.", "{__import__('os').system('true')}")),
    "a private attribute": texted(("You close the {r.name}.", "{r.__class__}")),
    "an index": texted(("You close the {r.name}.", "{(r.name).upper}")),
    "a number": texted(("You close the {r.name}.", "{1}")),
    "a long sum": texted(("You close the {r.name}.", "{" + "r.name + " * 5000 + "r.name}")),
    "too many brackets": texted(("You close the {r.name}.", "{" + "(" * 5000 + "r.name" + ")" * 5000 + "}")),
    "an expression that is cut off": texted(("You close the {r.name}.", "{r.name +}")),
    "cut off": grammar()[: len(grammar()) // 2],
    "JSON": json.dumps({"intro": "Hello."}),
}


@pytest.mark.parametrize("text", cases(WRONG_GRAMMARS))
def test_wrong_grammars_are_refused(tmp_path, text):
    assert "grammar" in refused(tmp_path, data(grammar=text))


def test_rules_that_double_are_refused_or_played(tmp_path):
    load_and_play(write_game(tmp_path, kitchen().problem(HOT), texts=doubled(40)))


def load_and_play(path):
    """Load a file and play a little, if it is a game; refuse it in one line, if it is none."""
    try:
        game = load_game(path)
    except ConfigError:
        refusal(path)
    else:
        random_transcript(Play(game), 0, steps=5)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "game.tw-pddl"


WHOLE = json.dumps(data()).encode()
KEYS = st.sampled_from(sorted(data()))
PLACE = st.floats(0, 1, exclude_max=True)
"""A place in a text or file, as a part of its length."""


@settings(max_examples=200)
@given(PLACE)
def test_a_truncated_file_is_refused(damaged, place):
    damaged.write_bytes(WHOLE[: int(place * len(WHOLE))])
    refusal(damaged)


@settings(max_examples=300)
@given(KEYS, PLACE)
def test_a_truncated_text_is_refused_or_played(damaged, key, place):
    text = data()[key]
    damaged.write_text(json.dumps(data(**{key: text[: int(place * len(text))]})))
    load_and_play(damaged)


@settings(max_examples=300)
@given(st.lists(st.tuples(PLACE, st.integers(0, 255)), min_size=1, max_size=5))
def test_a_file_with_other_bytes_is_refused_or_played(damaged, flips):
    content = bytearray(WHOLE)
    for place, byte in flips:
        content[int(place * len(content))] = byte
    damaged.write_bytes(content)
    load_and_play(damaged)


MARKS = (*'(){}[]#";:?-|&,. \n\\+', "'", "or", "not")


@settings(max_examples=500)
@given(KEYS, st.lists(st.tuples(PLACE, st.integers(0, 20), st.sampled_from((*MARKS, ""))), min_size=1, max_size=3))
def test_a_text_with_other_marks_is_refused_or_played(damaged, key, changes):
    text = data()[key]
    for place, dropped, mark in changes:
        at = int(place * len(text))
        text = text[:at] + mark + text[at + dropped :]
    damaged.write_text(json.dumps(data(**{key: text})))
    load_and_play(damaged)


@settings(max_examples=300)
@given(KEYS, PLACE, PLACE)
def test_a_text_with_words_in_each_others_places_is_refused_or_played(damaged, key, one, other):
    words = data()[key].split(" ")
    first, second = int(one * len(words)), int(other * len(words))
    words[first], words[second] = words[second], words[first]
    damaged.write_text(json.dumps(data(**{key: " ".join(words)})))
    load_and_play(damaged)


# -- what is read once ------------------------------------------------------------------------------------------------


def test_the_same_file_is_read_once_and_a_changed_one_again(tmp_path):
    path = write_game(tmp_path, kitchen().problem(HOT))
    game = load_game(path)
    assert load_game(Path(path)) is game
    os.utime(path, ns=(0, 0))
    assert load_game(path) is not game
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"walkthrough": ["look"]}))
    assert load_game(path).walkthrough == ("look",)
    assert game.walkthrough == ()


def test_a_file_that_another_one_replaces_is_read_again_though_size_and_time_are_the_same(tmp_path):
    first = write_game(tmp_path, kitchen().problem(HOT), walkthrough=["look"])
    second = write_game(tmp_path, kitchen().problem(HOT), walkthrough=["help"])
    for path in (first, second):
        os.utime(path, ns=(0, 0))
    assert load_game(first).walkthrough == ("look",)
    second.replace(first)
    assert load_game(first).walkthrough == ("help",)


def test_a_game_that_was_damaged_and_mended_can_be_played(tmp_path):
    path = write_game(tmp_path, kitchen().problem(HOT))
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    refusal(path)
    path.write_bytes(whole)
    assert load_game(path).agents == ("agent1",)


def test_games_that_nobody_plays_are_let_go(tmp_path):
    house = House("z").receptacle("fridge_bar_1", "a", "openable").problem("(opened fridge_bar_1)")
    first = weakref.ref(load_game(write_game(tmp_path, house)))
    kept = load_game(write_game(tmp_path, house))
    path = kept.path
    for _ in range(200):
        load_game(write_game(tmp_path, house))
    gc.collect()
    assert first() is None
    assert load_game(path) is kept


# -- episodes ---------------------------------------------------------------------------------------------------------


def test_an_episode_is_won_and_begins_again(game):
    play = Play(game)
    said = transcript(play, WIN)
    assert [won for _, _, won in said] == [False] * 4 + [True] * 3
    assert said[-2][0] == "This is a hot apple 2."
    assert transcript(play, WIN) == said


def test_two_episodes_of_a_game_do_not_touch_each_other(game):
    alone = random_transcript(Play(game), 1), random_transcript(Play(game), 2)
    first, second = Play(game), Play(game)
    ours, theirs = [first.begin()], [second.begin()]
    for (command, *_), (other, *_) in zip(alone[0][1:], alone[1][1:], strict=True):
        ours.append((command, first.act(command), first.commands(), first.won))
        theirs.append((other, second.act(other), second.commands(), second.won))
    assert (ours, theirs) == alone


def test_a_snapshot_is_a_copy(game):
    play = Play(game)
    transcript(play, WIN[:3])
    state = play.snapshot()
    before = play.commands()
    play.act(WIN[3])
    assert play.won
    play.restore(state)
    assert (play.won, play.commands()) == (False, before)
    other = Play(game)
    other.restore(state)
    other.act(WIN[3])
    assert (other.won, play.won) == (True, False)
    play.restore(state)
    assert play.commands() == before


def test_facts_are_those_of_now(game):
    play = Play(game)
    transcript(play, WIN[:2])
    assert play.facts("holds") == {("agent1", "apple_bar_1")}
    assert ("apple_bar_1", "countertop_bar_1") not in play.facts("inreceptacle")
    assert play.facts("nonsense") == set()


# -- several agents ---------------------------------------------------------------------------------------------------


@pytest.fixture
def team(game):
    play = Play(game, agents=("agent1", "agent2"))
    play.begin()
    return play


def test_agents_have_places_and_hands_of_their_own(team):
    assert team.commands("agent1") == team.commands("agent2")
    team.act("go to countertop 2", "agent1")
    assert "take apple 2 from countertop 2" in team.commands("agent1")
    assert "take apple 2 from countertop 2" not in team.commands("agent2")
    assert team.act("take apple 2 from countertop 2", "agent2") == "Nothing happens."
    team.act("take apple 2 from countertop 2", "agent1")
    assert team.act("inventory", "agent1") == "You are carrying: a apple 2."
    assert team.act("inventory", "agent2") == "You are not carrying anything."
    assert team.act("look", "agent2").startswith("You are in the middle of a room.")


def test_what_one_agent_takes_is_gone_for_the_other(team):
    for agent in team.agents:
        team.act("go to countertop 2", agent)
    assert team.commands("agent1") == team.commands("agent2")
    team.act("take apple 2 from countertop 2", "agent2")
    assert "take apple 2 from countertop 2" not in team.commands("agent1")
    assert team.act("examine countertop 2", "agent1") == "On the countertop 2, you see a knife 1."
    team.act("move apple 2 to countertop 2", "agent2")
    assert "take apple 2 from countertop 2" in team.commands("agent1")


def test_what_one_agent_opens_is_open_for_all(team):
    for agent in team.agents:
        team.act("go to cabinet 1", agent)
    team.act("open cabinet 1", "agent1")
    assert "close cabinet 1" in team.commands("agent2")
    assert team.act("open cabinet 1", "agent2") == "Nothing happens."


def test_agents_win_together(team):
    team.act("go to countertop 2", "agent1")
    team.act("take apple 2 from countertop 2", "agent1")
    team.act("move apple 2 to countertop 2", "agent1")
    for command in WIN[:3]:
        team.act(command, "agent2")
    assert not team.won
    team.act(WIN[3], "agent2")
    assert team.won


def test_a_team_begins_again_and_forks(team):
    state = team.snapshot()
    rng = random.Random(0)

    def played():
        said = []
        for _ in range(40):
            agent = rng.choice(team.agents)
            said.append((agent, team.act(rng.choice(team.commands(agent)), agent), team.commands(agent), team.won))
        return said

    first = played()
    assert team.facts("atlocation") != {("agent1", "loc_bar_z"), ("agent2", "loc_bar_z")}
    for again in (team.begin, lambda: team.restore(state)):
        again()
        rng.seed(0)
        assert played() == first
    team.begin()
    assert team.facts("atlocation") == {("agent1", "loc_bar_z"), ("agent2", "loc_bar_z")}


def test_an_agent_beside_others_who_do_nothing_plays_as_alone(game):
    alone, team = Play(game), Play(game, agents=("agent1", "agent2", "agent3", "agent4"))
    assert random_transcript(team, 5) == random_transcript(alone, 5)


def test_agents_of_a_file_are_those_that_it_names(tmp_path):
    house = kitchen().declare(alice="agent").fact("atlocation", "alice", "loc_bar_a")
    game = load_game(write_game(tmp_path, house.problem(HOT)))
    assert game.agents == ("agent1", "alice")
    play = Play(game, agents=("alice", "zoe"))
    assert "take apple 2 from countertop 2" in play.commands("alice")
    assert "take apple 2 from countertop 2" not in play.commands("zoe")


# -- many at once -----------------------------------------------------------------------------------------------------

MANY = 256


def test_many_episodes_of_a_game_are_small(game):
    random_transcript(Play(game), 0)
    gc.collect()
    tracemalloc.start()
    try:
        plays = [Play(game) for _ in range(MANY)]
        said = [random_transcript(play, seed, steps=10) for seed, play in enumerate(plays)]
        assert len({str(one) for one in said}) > MANY // 2
        del said
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / MANY < 200_000
    finally:
        tracemalloc.stop()


def test_many_games_are_small(tmp_path):
    specs = [game_of("train", seed) for seed in range(MANY)]
    paths = [write_game(tmp_path, problem_text(spec, furnish(spec)), texts=grammar(spec.family)) for spec in specs]
    load_game(paths[0])
    gc.collect()
    tracemalloc.start()
    try:
        plays = [Play(load_game(path)) for path in paths]
        said = [random_transcript(play, seed, steps=3) for seed, play in enumerate(plays)]
        assert len({one[0] for one in said}) > MANY // 2
        del said
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / MANY < 1_000_000
    finally:
        tracemalloc.stop()


def test_threads_that_share_a_game_do_not_disturb_each_other(tmp_path):
    path = write_game(tmp_path, kitchen().problem(HOT))
    alone = [random_transcript(Play(load_game(path)), seed) for seed in range(64)]
    os.utime(path, ns=(0, 0))

    def one(seed):
        return random_transcript(Play(load_game(path)), seed)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(64))) == alone


def test_threads_that_load_games_do_not_disturb_each_other(tmp_path):
    specs = [game_of("train", seed) for seed in range(24)]
    paths = [write_game(tmp_path, problem_text(spec, furnish(spec)), texts=grammar(spec.family)) for spec in specs]

    def one(path):
        return random_transcript(Play(load_game(path)), 0, steps=10)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, paths))
    for path in paths:
        os.utime(path, ns=(0, 0))
    assert together == [one(path) for path in paths]
