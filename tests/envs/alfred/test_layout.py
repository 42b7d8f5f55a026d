import json
import logging
import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arena import PrerequisiteError, UnknownIdError
from arena.envs._alfred import layout
from arena.envs._alfred.layout import TASK_TYPES, find_game, find_games

SIMPLE, LIGHT, CLEAN, HEAT, COOL, TWO = TASK_TYPES
ALARM = f"{SIMPLE}-AlarmClock-None-Desk-307"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ARENA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "data" / "json_2.1.1"


def add(data, task=ALARM, trial="trial_T20190907_072317_014092", *, split="train", type_=None, game=None):
    """Put a trial into the data; `game` is what its game file holds, '' for no file."""
    folder = data / split / task / trial
    folder.mkdir(parents=True)
    trajectory = {"images": [1, 2], "task_type": type_ or task.partition("-")[0], "pddl_params": {}}
    (folder / "traj_data.json").write_text(json.dumps(trajectory))
    if game != "":
        (folder / "game.tw-pddl").write_text(
            json.dumps({"pddl_domain": "", "solvable": True, "walkthrough": []}) if game is None else game
        )
    return folder


def listed(split="train", types=TASK_TYPES):
    layout._listed.cache_clear()
    return [game.game for game in find_games(split, types)]


def test_games_are_listed_in_the_order_of_their_paths_with_ids_and_types(data):
    second = add(data, f"{TWO}-Mug-None-Desk-1", "trial_b")
    first = add(data, f"{TWO}-Mug-None-Desk-1", "trial_a")
    add(data, ALARM)
    games = find_games("train")
    assert [game.path for game in games] == [
        data / "train" / ALARM / "trial_T20190907_072317_014092" / "game.tw-pddl",
        first / "game.tw-pddl",
        second / "game.tw-pddl",
    ]
    assert games[0].id == f"{ALARM}-trial_T20190907_072317_014092"
    assert games[0].game == f"train/{ALARM}/trial_T20190907_072317_014092/game.tw-pddl"
    assert [game.task_type for game in games] == [SIMPLE, TWO, TWO]


def test_a_split_has_its_own_games_and_types_are_chosen(data):
    add(data)
    add(data, f"{HEAT}-Egg-None-Fridge-2", split="valid_unseen")
    add(data, f"{COOL}-Egg-None-Fridge-2", split="valid_unseen")
    assert len(listed("train")) == 1
    assert len(listed("valid_unseen")) == 2
    (only,) = find_games("valid_unseen", [COOL])
    assert only.task_type == COOL
    with pytest.raises(PrerequisiteError, match="no ALFWorld games of the types look_at_obj_in_light in"):
        find_games("valid_unseen", [LIGHT])
    with pytest.raises(UnknownIdError, match="known: train, valid_seen, valid_unseen"):
        find_games("../valid_unseen")


@pytest.mark.parametrize(
    ("task", "game"),
    [
        ("pick_and_place_with_movable_recep-Egg-Bowl-Fridge-2", None),
        (f"{HEAT}-AppleSliced-None-Fridge-2", None),
        (ALARM, ""),
        (ALARM, '{"walkthrough": []}'),
        (ALARM, '{"solvable": false}'),
        (ALARM, '{"solvable": null}'),
        ("pick_up_the_moon-Moon-None-Sky-2", None),
    ],
)
def test_what_alfworld_leaves_out_is_left_out(data, task, game):
    kept = add(data, f"{TWO}-Mug-None-Desk-1")
    add(data, task, game=game)
    assert listed() == [str((kept / "game.tw-pddl").relative_to(data))]


def test_a_trial_without_trajectory_is_no_game(data):
    kept = add(data, f"{TWO}-Mug-None-Desk-1")
    (add(data) / "traj_data.json").unlink()
    assert listed() == [str((kept / "game.tw-pddl").relative_to(data))]


def test_the_type_is_the_trajectorys_and_not_the_folders(data):
    add(data, type_=COOL)
    assert [game.task_type for game in find_games("train")] == [COOL]


@pytest.mark.parametrize("broken", ["", '{"solvable": tr', "[1, 2]", "\0", "[" * 100_000])
def test_a_corrupt_game_file_counts_as_a_game_and_hides_no_other(data, broken):
    add(data, f"{TWO}-Mug-None-Desk-1")
    folder = add(data)
    (folder / "game.tw-pddl").write_text(broken)
    assert len(listed()) == 2


@pytest.mark.parametrize("broken", ["", '{"task_type": "pick', '{"task_type": 3}', "{}", "[" * 100_000])
def test_a_corrupt_trajectory_leaves_the_type_to_the_folders_name(data, broken, caplog):
    (add(data, f"{TWO}-Mug-None-Desk-1") / "traj_data.json").write_text(broken)
    (add(data, "task_of_mine") / "traj_data.json").write_text(broken)
    with caplog.at_level(logging.WARNING):
        assert listed(types=[TWO]) == [f"train/{TWO}-Mug-None-Desk-1/trial_T20190907_072317_014092/game.tw-pddl"]
    assert "1 trials are no games (1 x traj_data.json that cannot be read)" in caplog.text


def test_games_that_a_user_may_miss_are_counted_in_one_warning(data, caplog):
    add(data, trial="a")
    add(data, trial="b", game="")
    add(data, trial="c", game="")
    add(data, trial="d", game="{}")
    add(data, trial="e", game='{"solvable": false}')
    with caplog.at_level(logging.WARNING):
        assert len(listed()) == 1
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "3 trials are no games (1 x game.tw-pddl without 'solvable', 2 x no game.tw-pddl)"
    )


def test_files_are_read_once_and_again_only_where_they_have_changed(data, monkeypatch):
    for number in range(5):
        add(data, trial=f"trial_{number}")
    read = []
    monkeypatch.setattr(
        layout, "_judge", lambda trial, stamps, judge=layout._judge: read.append(1) or judge(trial, stamps)
    )
    assert (len(listed()), len(read)) == (5, 5)
    assert (len(listed()), len(read)) == (5, 5)
    game = data / "train" / ALARM / "trial_3" / "game.tw-pddl"
    game.write_text('{"solvable": false}')
    assert (len(listed()), len(read)) == (4, 6)
    same_size = '{"solvable":  true}'
    game.write_text(same_size)
    os.utime(game, ns=(1, 1))
    assert (len(listed()), len(read)) == (5, 7)
    (data / "train" / ALARM / "trial_1" / "traj_data.json").unlink()
    assert (len(listed()), len(read)) == (4, 7)


def test_a_process_notices_a_task_that_comes_later(data):
    add(data)
    assert len(find_games("train")) == 1
    add(data, f"{TWO}-Mug-None-Desk-1")
    assert len(find_games("train")) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"version": 0, "verdicts": {}}', b'{"version": 1, "verdicts": {"a": 1}}']
)
def test_a_damaged_or_older_index_is_made_again(data, tmp_path, damage):
    add(data)
    assert len(listed()) == 1
    (index,) = (tmp_path / "cache" / "alfworld" / "index").iterdir()
    whole = index.read_bytes()
    index.write_bytes(damage)
    assert len(listed()) == 1
    assert index.read_bytes() == whole


def test_without_data_one_line_says_how_to_get_some_and_where_it_was_looked_for(data, tmp_path, monkeypatch):
    with pytest.raises(PrerequisiteError) as error:
        find_games("valid_seen")
    said = str(error.value)
    for part in (str(data / "valid_seen"), "alfworld-download", "ALFWORLD_DATA", "games=generated", "arena tasks"):
        assert part in said
    assert "\n" not in said
    monkeypatch.delenv("ALFWORLD_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PrerequisiteError, match=f"{tmp_path}/.cache/alfworld/json_2.1.1/train"):
        find_games("train")


def test_the_word_movable_in_the_path_of_the_data_is_no_reason_to_leave_games_out(tmp_path, monkeypatch, data):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "movable"))
    add(tmp_path / "movable" / "json_2.1.1")
    assert len(find_games("train")) == 1


def test_a_game_is_found_by_its_id_and_a_near_miss_is_named(data):
    add(data)
    (game,) = find_games("train")
    assert find_game("train", game.id) is game
    with pytest.raises(UnknownIdError, match=f"did you mean '{game.id}'"):
        find_game("train", game.id[:-1])
    for wrong in ("", "..", str(game.path), game.game, f"../train/{game.id}"):
        with pytest.raises(UnknownIdError):
            find_game("train", wrong)


@given(
    st.lists(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1), max_size=6)
)
def test_ids_are_plain_and_unique_whatever_the_folders_are_called(names):
    taken = {}
    for name in dict.fromkeys(names):
        id = layout._id(f"{ALARM}/{name}", taken)
        assert set(id) <= set(string.ascii_letters + string.digits + "-_")
        assert id not in taken
        taken[id] = name


def test_odd_folder_names_get_ids_too_and_unprintable_ones_are_left_out(data):
    add(data, trial="trial 1")
    add(data, trial="trial_1")
    os.makedirs(os.fsencode(data / "train" / ALARM) + b"/\xff")
    Path(os.fsdecode(os.fsencode(data / "train" / ALARM) + b"/\xff/traj_data.json")).write_text("{}")
    games = find_games("train")
    assert len(games) == 2
    assert len({game.id for game in games}) == 2
    for game in games:
        assert find_game("train", game.id).path == game.path
