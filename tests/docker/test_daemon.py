"""The daemon that the other tests use leaves nothing behind."""

import pytest

from tests.docker.daemon import KEY_FILE, PLUGINS, CannotStart, Daemon, why_not

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


def test_a_stopped_daemon_leaves_no_process_mount_control_group_or_file():
    if reason := why_not():
        pytest.skip(reason)
    before = [path.exists() for path in (KEY_FILE, PLUGINS)]
    daemon = Daemon()
    try:
        daemon.start()
        assert daemon.processes()
    except CannotStart as error:
        pytest.skip(str(error))
    finally:
        daemon.stop()
    assert [daemon.processes(), daemon.mounts(), daemon.cgroups()] == [[], [], []]
    assert not daemon.root.exists()
    assert [path.exists() for path in (KEY_FILE, PLUGINS)] == before
