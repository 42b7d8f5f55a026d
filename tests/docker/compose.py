"""The compose file, and the same container by `docker run`, which needs neither the plugin nor a bridge."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SERVICE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["server"]


def run_options(secrets):
    """Return the options of `docker run` that say what the compose file does, but for the published port.

    Args:
        secrets: The file of each secret.
    """
    words = ["--memory", SERVICE["mem_limit"], "--pids-limit", str(SERVICE["pids_limit"])]
    words += [f"--{name}" for key, name in (("read_only", "read-only"), ("init", "init")) if SERVICE[key]]
    for key, name in (("tmpfs", "tmpfs"), ("cap_drop", "cap-drop"), ("security_opt", "security-opt")):
        words += [word for value in SERVICE[key] for word in (f"--{name}", value)]
    for volume in SERVICE["volumes"]:
        words += ["--volume", volume]
    for name in SERVICE["secrets"]:
        words += ["--mount", f"type=bind,source={secrets[name]},target=/run/secrets/{name},readonly"]
    return words
