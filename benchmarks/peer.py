"""Virtual environments of other projects' packages: their pins are not ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["prepare"]


def prepare(folder: Path, requirements: Path) -> Path:
    """Make a virtual environment where it is missing, install what is required, and return its interpreter."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making {folder.parent.name}/{folder.name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    subprocess.run(install, check=True)
    return python
