"""What can be said of the image and the compose file without a daemon."""

import re
import shutil
import subprocess
import tomllib

import pytest
import yaml

from tests.docker.compose import ROOT, SERVICE

DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE = ROOT / "docker" / "compose.yaml"


def run(words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_the_server_cannot_write_to_the_image_or_gain_rights():
    assert SERVICE["read_only"] is True
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "user"} & set(SERVICE)


def test_memory_and_processes_are_limited():
    assert re.fullmatch(r"\d+[mg]", SERVICE["mem_limit"])
    assert SERVICE["pids_limit"] > 0
    assert all("size=" in mount for mount in SERVICE["tmpfs"])


def test_ports_are_published_to_this_machine_only():
    assert SERVICE["ports"]
    assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])


def test_tokens_come_as_a_secret_file_and_nothing_comes_as_a_variable():
    (secret,) = SERVICE["secrets"]
    assert f'"--token-file", "/run/secrets/{secret}"' in DOCKERFILE
    assert "environment" not in SERVICE
    assert not re.search(r"^(ARG|ENV) .*(TOKEN|SECRET|PASSWORD|KEY)", DOCKERFILE, flags=re.MULTILINE)


def test_state_is_kept_in_a_named_volume_that_the_image_declares():
    (volume,) = SERVICE["volumes"]
    name, _, folder = volume.partition(":")
    assert name in yaml.safe_load(COMPOSE.read_text())["volumes"]
    assert f"VOLUME {folder}\n" in DOCKERFILE


def test_the_container_is_given_longer_to_stop_than_the_server_gives_requests():
    from arena.server.settings import ServerSettings

    assert int(SERVICE["stop_grace_period"].removesuffix("s")) > ServerSettings().drain_s


def test_the_label_has_the_version_of_the_project():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG ARENA_VERSION={version}\n" in DOCKERFILE


def test_compose_takes_the_file():
    if not shutil.which("docker") or run(["docker", "compose", "version"]).returncode != 0:
        pytest.skip("docker compose is not installed")
    done = run(["docker", "compose", "--file", str(COMPOSE), "config", "--quiet"])
    assert done.returncode == 0, done.stderr
