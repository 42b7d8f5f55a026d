"""Sandboxes of namespaces, by bubblewrap: the machine's own system, read-only, and a workspace in memory.

Two bubblewraps, one in the other. The outer one mounts a file system in memory of the size that may be written; the
inner one lays the workspace over a folder of this machine (overlayfs: what is changed goes to memory) and makes all
namespaces. Both are gone with this process. The first process inside is `_inside`, to which commands are sent, so that
one costs a few milliseconds.

Memory, processor time and the number of processes are limited by control groups where this process may make them, else
by limits of each process; `enforced` says which.
"""

from arena.sandbox.bubblewrap._command_lines import find_bubblewrap
from arena.sandbox.bubblewrap._sandbox import BubblewrapSandbox

__all__ = ["BubblewrapSandbox", "find_bubblewrap"]
