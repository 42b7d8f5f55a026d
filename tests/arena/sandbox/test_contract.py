"""The bubblewrap back end keeps every clause of the sandbox contract, and the clauses notice who does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arena import ToolError
from arena.sandbox import ExecResult, Mount, Sandbox, SandboxLimits, SandboxSettings, Shell, Snapshot, open_sandbox
from arena.sandbox.bubblewrap import BubblewrapSandbox
from arena.testing.report import NotApplicable
from arena.testing.sandbox_clauses import CLAUSES
from arena.testing.sandbox_contract import check_sandbox
from arena.testing.sandbox_probe import SandboxProbe


def start(settings: SandboxSettings, snapshot: Snapshot | None) -> Sandbox:
    return open_sandbox(settings, snapshot=snapshot)


@pytest.fixture(scope="module")
def probe() -> Iterator[SandboxProbe]:
    probe = SandboxProbe(start, SandboxSettings())
    yield probe
    probe.close()


def test_there_are_clauses_enough() -> None:
    assert len(CLAUSES) >= 40
    assert all(clause.__doc__ for clause in CLAUSES.values())


@pytest.mark.parametrize("name", CLAUSES)
def test_clause(name: str, probe: SandboxProbe) -> None:
    try:
        CLAUSES[name](probe)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    finally:
        probe.sweep()


# -- back ends with one defect each: the clauses that must notice it -------------------------------------------------


class Careless(BubblewrapSandbox):
    def kill(self) -> None:
        pass


class Forgetful(BubblewrapSandbox):
    def restore(self, snapshot: Snapshot) -> None:
        if isinstance(snapshot, BubblewrapSandbox):
            raise AssertionError


class Hasty(BubblewrapSandbox):
    def exec(self, command: Any, **changes: Any) -> ExecResult:
        done = super().exec(command, **changes)
        return ExecResult(done.exit_code or 0, done.stdout, b"", 0, 0, done.duration_s, timed_out=False)


class Chatty(BubblewrapSandbox):
    def read_file(self, path: Any, *, max_bytes: int = 10 << 20) -> bytes:
        try:
            return super().read_file(path, max_bytes=max_bytes)
        except ToolError:
            return Path(path).read_bytes() if str(path).startswith("/") else b""


class Open(BubblewrapSandbox):
    def __init__(self, settings: SandboxSettings, snapshot: Snapshot | None = None) -> None:
        super().__init__(
            SandboxSettings(**{**_fields(settings), "mounts": (*settings.mounts, Mount(Path("/etc"), "/etc"))}),
            snapshot,
        )


class Generous(BubblewrapSandbox):
    def __init__(self, settings: SandboxSettings, snapshot: Snapshot | None = None) -> None:
        super().__init__(SandboxSettings(**{**_fields(settings), "limits": SandboxLimits()}), snapshot)


class Amnesiac(BubblewrapSandbox):
    def shell(self) -> Shell:
        sandbox, shell = self, super().shell()
        shell.run = sandbox.exec  # type: ignore[method-assign]
        return shell


def _fields(settings: SandboxSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in SandboxSettings.__dataclass_fields__}


DEFECTS: dict[type[BubblewrapSandbox], set[str]] = {
    Careless: {"kill_ends_all_and_keeps_files"},
    Forgetful: {"a_workspace_can_be_restored", "a_closed_snapshot_is_refused"},
    Hasty: {"a_time_out_ends_the_whole_tree", "output_is_kept_within_its_bounds"},
    Chatty: {"what_is_no_file_is_a_tool_error", "links_lead_nowhere_else"},
    Open: {"this_machines_files_cannot_be_read"},
    Generous: {"memory_is_of_all_together", "processor_time_is_limited", "open_files_are_limited"},
    Amnesiac: {"a_shell_keeps_its_state", "a_shell_that_exits_gives_its_code"},
}


@pytest.mark.parametrize("defective", DEFECTS, ids=lambda cls: cls.__name__)
def test_a_defect_is_noticed(defective: type[BubblewrapSandbox], monkeypatch: pytest.MonkeyPatch) -> None:
    clauses = {name: CLAUSES[name] for name in DEFECTS[defective]}
    monkeypatch.setattr("arena.testing.sandbox_contract.CLAUSES", clauses)
    report = check_sandbox(lambda settings, snapshot: defective(settings, snapshot))
    assert set(report.failed) == set(clauses)
