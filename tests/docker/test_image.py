"""The image of the server: built offline, started as the compose file says, played against, and stopped."""

import hashlib
import json

import pytest

from tests.docker.container import SERVER_UID, Container

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]

WRITABLE = """
import json, os
found = {}
for folder in ("/", "/etc", "/opt/arena", "/run/secrets", "/usr/bin", "/dev/shm", "/tmp", "/var/lib/arena"):
    path = os.path.join(folder, "written")
    try:
        open(path, "w").close()
        os.remove(path)
    except OSError as error:
        found[folder] = error.strerror
    else:
        found[folder] = "written"
try:
    open("/run/secrets/arena_tokens", "a").close()
except OSError as error:
    found["the secret"] = error.strerror
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def server(daemon, image, tmp_path_factory):
    return Container(daemon, image, tmp_path_factory.mktemp("server"))


def test_the_build_sees_sources_and_wheels_and_nothing_else(daemon, base_image, context, wheels, tmp_path):
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(f"FROM {base_image}\nCOPY . /context\nRUN cd /context && find . -type f > /list\n")
    daemon.docker("build", "--network=none", "--tag=context", "--file", dockerfile, context, timeout_s=300)
    files = daemon.docker("run", "--rm", "--network=none", "context", "cat", "/list").split()
    assert "./arena/__init__.py" in files
    assert {path.split("/")[1] for path in files} == {
        *("LICENSE", "README.md", "agents", "arena", "constraints.txt", "docker", "envs", "pyproject.toml", "scenarios")
    }
    assert all(path.endswith(".whl") for path in files if path.startswith("./docker/"))


def test_a_game_is_won_against_the_container(server):
    played = server.play()
    assert played["score"] == 1.0
    assert played["steps"] >= 2


def test_a_session_goes_on_in_a_new_container(server):
    begun = server.play(steps=1)
    assert (begun["steps"], begun["score"]) == (1, None)
    server.replace()
    played = server.play(capability=begun["capability"])
    assert played["score"] == 1.0
    assert played["steps"] > 1


def test_every_process_is_unprivileged(server):
    folders = server.processes()
    assert len(folders) >= 4, "process 1, the server and two workers"
    for folder in folders:
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(SERVER_UID)}
        assert {int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"


def test_only_temporary_files_and_the_state_can_be_written(server):
    found = json.loads(server.python(WRITABLE))
    assert [folder for folder, said in found.items() if said == "written"] == ["/dev/shm", "/tmp", "/var/lib/arena"]
    assert {said for said in found.values() if said != "written"} == {"Read-only file system"}


def test_memory_and_processes_are_limited(server):
    host = server.inspect(".HostConfig")
    assert (host["Memory"], host["PidsLimit"]) == (4 * 2**30, 512)


def test_no_secret_is_in_arguments_variables_logs_or_layers(server, image):
    secrets = [server.token, hashlib.sha256(server.token.encode()).hexdigest()]
    seen = [json.dumps(server.inspect(".")), server.logs(), server.daemon.docker("inspect", image)]
    seen.append(server.daemon.docker("history", "--no-trunc", image))
    for name in ("cmdline", "environ"):
        seen += [(folder / name).read_bytes().decode() for folder in server.processes()]
    assert all(seen)
    assert not [secret for secret in secrets for text in seen if secret in text]


def test_the_health_check_fails_where_no_server_answers(daemon, image):
    kind, *command = json.loads(daemon.docker("inspect", "--format", "{{json .Config.Healthcheck.Test}}", image))
    assert kind == "CMD"
    words = ["run", "--rm", "--network=none", f"--entrypoint={command[0]}", image, *command[1:]]
    assert daemon.run(*words, check=False).returncode == 1


def test_without_a_token_file_it_does_not_start(daemon, image):
    done = daemon.run("run", "--rm", "--network=none", "--read-only", "--tmpfs=/tmp:exec", image, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("arena: there is no token file /run/secrets/arena_tokens")


def test_a_stop_drains_and_ends_with_0(server):
    folders = server.processes()
    server.daemon.docker("stop", "--time=30", server.id)
    assert server.inspect(".State.ExitCode") == 0
    assert "draining" in server.logs()
    assert not [folder for folder in folders if folder.exists()]
