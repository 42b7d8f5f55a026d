import hashlib
import hmac
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from arena.errors import ConfigError, UnauthorizedError
from arena.server import tokens
from arena.server.tokens import TokenFile, add_token

SECRET = "arena_" + "s" * 43
HASH = "sha256:" + hashlib.sha256(SECRET.encode()).hexdigest()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines))
    path.chmod(0o600)
    return path


def test_a_new_token_lets_its_holder_in_with_its_scopes_and_stands_in_no_file(path):
    secret = add_token(path, "alice", ["play", "admin"])
    principal = TokenFile.load(path).principal(f"Bearer {secret}")
    assert (principal.name, principal.scopes) == ("alice", {"play", "admin"})
    assert secret.removeprefix("arena_") not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_secrets_are_long_random_and_marked(path):
    made = [add_token(path, "alice", ["play"]) for _ in range(20)]
    assert len(set(made)) == 20
    assert all(secret.startswith("arena_") and len(secret) == 49 for secret in made)
    assert {TokenFile.load(path).authenticate(secret).name for secret in made} == {"alice"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_the_scheme_is_written_as_clients_write_it(path, scheme):
    assert TokenFile.load(write(path, f"alice play {HASH}")).principal(f"{scheme} {SECRET}").name == "alice"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        SECRET,
        f"Basic {SECRET}",
        f"Bearer {SECRET}x",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {HASH}",
        f"Bearer {HASH.removeprefix('sha256:')}",
        "Bearer \xff\udc80",
        "Bearer alice",
    ],
)
def test_nothing_else_lets_anybody_in(path, header):
    with pytest.raises(UnauthorizedError) as caught:
        TokenFile.load(write(path, f"alice play {HASH}")).principal(header)
    assert SECRET not in str(caught.value)


def test_every_line_is_compared_whichever_fits(path, monkeypatch):
    secrets = [add_token(path, name, ["play"]) for name in ("alice", "bob", "carol")]
    file = TokenFile.load(path)
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    for secret, name in zip(secrets, ("alice", "bob", "carol"), strict=True):
        compared.clear()
        assert file.authenticate(secret).name == name
        assert len(compared) == 3


def test_comments_and_empty_lines_are_skipped(path):
    file = TokenFile.load(write(path, "# who may play", "", f"  alice play,expert {HASH}  # until spring"))
    assert file.authenticate(SECRET).scopes == {"play", "expert"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"alice {HASH}", "name scopes sha256"),
        (f"alice play {HASH} more", "name scopes sha256"),
        ("alice play sha256:12", "name scopes sha256"),
        (f"alice play {HASH.upper()}", "name scopes sha256"),
        (f"alice play {SECRET}", "name scopes sha256"),
        (f"al/ice play {HASH}", "letters, digits"),
        (f"alice plya {HASH}", "did you mean 'play'"),
        (f"alice play, {HASH}", "no scope ''"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(path, line, why):
    with pytest.raises(ConfigError, match="line 3: ") as caught:
        TokenFile.load(write(path, "# tokens", f"bob play {HASH}", line))
    assert why in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_missing_and_an_empty_file_say_how_to_make_a_token(path):
    with pytest.raises(ConfigError, match="arena token"):
        TokenFile.load(path)
    with pytest.raises(ConfigError, match="no token; make one with: arena token"):
        TokenFile.load(write(path, "# nobody yet"))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_what_is_no_text_file_is_refused_in_one_line(path, content):
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot read"):
        TokenFile.load(path)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o620])
def test_a_file_that_others_can_read_or_change_is_refused(path, mode):
    write(path, f"alice play {HASH}").chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        TokenFile.load(path)
    with pytest.raises(ConfigError, match="chmod 600"):
        add_token(path, "bob", ["play"])


def test_a_token_is_taken_away_and_given_without_a_restart(path):
    alice, bob = add_token(path, "alice", ["play"]), add_token(path, "bob", ["play"])
    file = TokenFile.load(path)
    write(path, *[line for line in path.read_text().splitlines() if not line.startswith("alice")])
    with pytest.raises(UnauthorizedError):
        file.authenticate(alice)
    assert file.authenticate(bob).name == "bob"
    carol = add_token(path, "carol", ["admin"])
    assert file.authenticate(carol).scopes == {"admin"}


def test_while_the_server_runs_a_wrong_line_costs_only_itself(path, caplog):
    file = TokenFile.load(write(path, f"alice play {HASH}"))
    write(path, "bob play oops", f"alice play {HASH}")
    assert file.authenticate(SECRET).name == "alice"
    assert "line 1" in caplog.text


def test_a_file_that_vanishes_or_opens_up_lets_nobody_in_until_it_is_right_again(path, caplog):
    file = TokenFile.load(write(path, f"alice play {HASH}"))
    path.unlink()
    for _ in range(2):
        with pytest.raises(UnauthorizedError):
            file.authenticate(SECRET)
    assert caplog.text.count("nobody is let in") == 1
    write(path, f"alice play {HASH}")
    assert file.authenticate(SECRET).name == "alice"
    path.chmod(0o666)
    with pytest.raises(UnauthorizedError):
        file.authenticate(SECRET)
    path.chmod(0o600)
    assert file.authenticate(SECRET).name == "alice"


def test_tokens_made_at_once_are_all_there(path):
    with ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(lambda n: add_token(path, f"n{n}", ["play"]), range(24)))
    file = TokenFile.load(path)
    assert [file.authenticate(secret).name for secret in secrets] == [f"n{n}" for n in range(24)]


def test_a_line_without_its_end_is_not_run_into(path):
    path.write_text(f"bob play {HASH}")
    path.chmod(0o600)
    alice = add_token(path, "alice", ["play"])
    file = TokenFile.load(path)
    assert (file.authenticate(SECRET).name, file.authenticate(alice).name) == ("bob", "alice")


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["play"]), ("a b", ["play"]), ("a\nb", ["play"]), ("a", ["x"]), ("a", [])]
)
def test_a_name_or_scope_that_no_server_would_take_is_not_written(path, name, scopes):
    with pytest.raises(ConfigError):
        add_token(path, name, scopes)
    assert not os.path.exists(path)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="cannot write"):
        add_token(tmp_path / "no" / "tokens", "alice", ["play"])
