import subprocess
import sys

import pytest

import arena

HEAVY = ["arena.envs", "arena.agents", "arena.server", "fastapi", "jinja2", "pettingzoo", "prometheus_client", "scipy",
         "starlette", "textworld", "torch", "uvicorn"]  # fmt: skip


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()


def test_the_client_pulls_in_neither_environments_nor_the_web_stack():
    loaded = loaded_by("import arena.client")
    assert "websockets" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_arena_itself_pulls_in_no_client():
    loaded = loaded_by("import arena")
    assert "arena.session" in loaded
    assert [name for name in ("arena.client", "websockets") if name in loaded] == []


def test_connect_is_a_public_name_of_arena():
    from arena.client import connect

    assert arena.connect is connect
    assert "connect" in arena.__all__
    with pytest.raises(AttributeError, match="conect"):
        _ = arena.conect
