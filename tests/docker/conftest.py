import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.docker.base_image import CannotMake, base_archive
from tests.docker.compose import ROOT
from tests.docker.daemon import CannotStart, Daemon, why_not

LEFT_OUT = (".git", ".venv*", "__pycache__", "build", "runs", "node_modules", "*.egg-info", ".*_cache", ".hypothesis")
BUILD_S = 900.0


@pytest.fixture(scope="session")
def daemon():
    """A daemon that lives as long as the tests."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    daemon = Daemon()
    try:
        daemon.start()
        yield daemon
    except CannotStart as error:
        pytest.skip(str(error))
    finally:
        daemon.stop()


@pytest.fixture(scope="session")
def base_image(daemon):
    """The name of an image with nothing but Debian and its Python, which is of this interpreter's version."""
    try:
        daemon.docker("import", base_archive(), "base")
    except CannotMake as error:
        pytest.skip(str(error))
    found = daemon.docker(
        "run", "--rm", "--network=none", "base", "python3", "-c", "import sys; print(sys.version_info[:2])"
    )
    if found != str(sys.version_info[:2]):
        pytest.skip(f"the base image has Python {found}, and wheels are built for {sys.version_info[:2]}")
    return "base"


@pytest.fixture(scope="session")
def context(tmp_path_factory):
    """A copy of the repository as a fresh checkout has it, with wheels for every dependency, and with a secret."""
    folder = tmp_path_factory.mktemp("docker") / "context"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT, "wheels"))
    (folder / "docker" / "secrets").mkdir(exist_ok=True)
    (folder / "docker" / "secrets" / "arena_tokens").write_text("not for an image\n")
    (folder / ".env").write_text("SECRET=not-for-an-image\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def wheels(context):
    """The folder of wheels in the build's context, so that the build needs no network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    folder = context / "docker" / "wheels"
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder)]
    words += ["--constraint", str(ROOT / "constraints.txt"), "setuptools>=77"]
    words += [*project["dependencies"], *extras["server"], *extras["text"]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="session")
def image(daemon, base_image, context, wheels):
    """The name of the server's image, built without a network."""
    words = ["build", "--network=none", f"--build-arg=BASE_IMAGE={base_image}", "--tag=arena-server"]
    daemon.docker(*words, "--file", context / "docker" / "Dockerfile", context, timeout_s=BUILD_S)
    return "arena-server"
