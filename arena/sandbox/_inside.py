"""The first process of a bubblewrap sandbox: it starts commands that its opener sends, and ends them.

This file runs inside, by itself: it imports nothing of Arena and little of Python, so that it starts in a few
milliseconds. It has no more rights than the commands have. They cannot trace it (it is not dumpable), cannot signal it
(it is process 1 and handles no signal), and cannot reach the pipes that it was given for others.

A request is a packet of file descriptors, the first of which holds NUL-separated words:

* ``run ID DIRECTORY N ARGUMENT*N VARIABLE*``, with standard input, output and error, a descriptor for the exit status,
  and more that the command gets as 3, 4 and so on. The status is a line: ``exit N``, ``signal N`` or ``error TEXT``.
* ``kill ID WHOM``: everything that came of a command, or only what its first process has started (``children``). Also
  with a descriptor, to which ``done`` is written.
* ``ping``, with a descriptor, to which ``done`` is written.
* ``stop``, ``continue`` and ``clear``: all processes but this one are held, let go, or ended. Each with a descriptor,
  to which ``done`` is written.
* ``open PATH FLAGS MODE``, with a socket: on that comes a packet, with an open file or an error's number.

A command's runner is its parent, adopts what its descendants leave behind, and ends after the last of them. So what
came of a command is what descends from its runner.
"""

# mypy: ignore-errors

import _signal as signal  # `signal` and `socket` import much that is not needed
import _socket as socket
import ctypes
import os
import resource
import select
import sys
import time

_SET_DUMPABLE, _SET_CHILD_SUBREAPER = 4, 36
_MOST_FDS = 16
_PASSES, _AT_ONCE, _PAUSE_S = 200, 10, 0.005


def main() -> None:
    """Serve until the control socket is closed, and end with everything that runs."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)  # whoever has it gets what is meant for this process
    limits = [(int(kind), int(most)) for kind, most in (word.split("=") for word in sys.argv[2:])]
    _process_control(_SET_DUMPABLE, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    runners = {}
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    poll.register(wake, select.POLLIN)
    os.write(control.fileno(), b"ready")
    while True:
        events = dict(poll.poll())
        if wake in events:
            os.read(wake, 4096)
            _reap(runners)
        if control.fileno() in events and not _serve(control, runners, limits):
            return


def _serve(control, runners, limits):
    """Take one request; return whether there will be more."""
    data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4 * _MOST_FDS), socket.MSG_CMSG_CLOEXEC)
    fds = [fd for _, _, packed in ancillary for fd in memoryview(packed).cast("i")]
    if not data:
        return False
    try:
        _answer(fds, runners, limits)
    except (OSError, IndexError, ValueError):  # a request that cannot be served is not answered, and nothing more
        pass
    finally:
        for fd in fds:
            os.close(fd)
    return True


def _answer(fds, runners, limits):
    kind, *words = os.pread(fds[0], os.fstat(fds[0]).st_size, 0).split(b"\0")
    if kind == b"run":
        _run(words, fds[1:], runners, limits)
    elif kind == b"kill":
        _kill(runners.get(words[0]), words[1] == b"children")
        os.write(fds[1], b"done")
    elif kind in (b"stop", b"continue"):
        _signal_all(signal.SIGSTOP if kind == b"stop" else signal.SIGCONT)
        os.write(fds[1], b"done")
    elif kind == b"clear":
        _clear(runners)
        os.write(fds[1], b"done")
    elif kind == b"ping":
        os.write(fds[1], b"done")
    elif kind == b"open":
        _open(words, fds[1])


def _run(words, fds, runners, limits):
    name, directory, count, *rest = words
    arguments, variables = rest[: int(count)], rest[int(count) :]
    status = fds[3]
    try:
        runner = os.fork()
    except OSError as error:  # there are as many processes as there may be
        _say(status, b"error %s" % os.fsencode(error.strerror))
        return
    if runner:
        runners[name] = runner
        return
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _process_control(_SET_CHILD_SUBREAPER, 1)
        os.setsid()
        child = os.fork()
        if child == 0:
            _become(directory, arguments, variables, fds, limits)
        for fd in (*fds[:3], *fds[4:]):
            os.close(fd)
        _outlive(child, status)
    except OSError as error:
        _say(status, b"error %s" % os.fsencode(error.strerror or "unknown"))
    finally:
        os._exit(0)


def _become(directory, arguments, variables, fds, limits):
    """Turn this process into the command."""
    status = fds[3]
    try:
        os.setsid()
        os.chdir(directory)
    except OSError as error:
        _say(status, b"error %s: %s" % (os.fsencode(error.strerror), directory))
        os._exit(127)
    try:
        for kind, most in limits:
            resource.setrlimit(kind, (most, most))
        wanted = [*fds[:3], *fds[4:]]
        high = [os.dup(fd) for fd in wanted] if min(wanted) < len(wanted) else wanted
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
        environment = dict(variable.split(b"=", 1) for variable in variables)
        os.execvpe(arguments[0], arguments, environment)
    except OSError as error:
        _say(status, b"error %s: %s" % (os.fsencode(error.strerror), arguments[0]))
    finally:
        os._exit(127)


def _outlive(child, status):
    """Wait for all that descends from this process; say what became of the child as soon as it is known."""
    while True:
        try:
            pid, code = os.wait()
        except ChildProcessError:
            return
        if pid == child:
            ended = os.waitstatus_to_exitcode(code)
            _say(status, b"exit %d" % ended if ended >= 0 else b"signal %d" % -ended)
            os.close(status)


def _say(fd, text):
    try:
        os.write(fd, text + b"\n")
    except OSError:
        pass


def _open(words, answer):
    path, flags, mode = words
    channel = socket.socket(fileno=os.dup(answer))
    try:
        fd = os.open(path, int(flags) | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, int(mode))
    except OSError as error:
        channel.send(b"%d" % error.errno)
    else:
        channel.sendmsg([b"0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))])
        os.close(fd)
    finally:
        channel.close()


def _kill(runner, spare_first):
    """End what descends from a runner, and the runner; or all but it and its first child, if asked."""
    if runner is None:
        return
    for number in range(_PASSES):
        if number >= _AT_ONCE:
            time.sleep(_PAUSE_S)  # what was ended takes a moment to go
        parents, began = _parents()
        found = _descendants(runner, parents)
        if spare_first:
            own = [pid for pid in found if parents[pid] == runner]
            found -= {min(own, key=began.__getitem__)} if own else set()  # what it has adopted began later
        if not found:
            if not spare_first:
                os.kill(runner, signal.SIGKILL)  # it may have been stopped
            return
        for kind in (signal.SIGSTOP, signal.SIGKILL):  # what is stopped does not fork
            for pid in found:
                try:
                    os.kill(pid, kind)
                except ProcessLookupError:
                    pass
    _signal_all(signal.SIGKILL)  # it forks faster than it can be counted


def _clear(runners):
    """End all other processes, and wait until they are gone."""
    _signal_all(signal.SIGKILL)
    try:
        while True:
            os.wait()
    except ChildProcessError:
        runners.clear()


def _signal_all(number):
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        pass


def _parents():
    """Return the parent of every process that is not a zombie, and when it began."""
    found, began = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", 0) as file:
                    words = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if words[0] not in (b"Z", b"X"):
                found[int(name)], began[int(name)] = int(words[1]), int(words[19])
    return found, began


def _descendants(root, parents):
    found, size = {root}, 0
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found - {root}


def _reap(runners):
    """Bury what has ended, and forget the runners among it."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for name in [name for name, runner in runners.items() if runner == pid]:
            del runners[name]


def _process_control(option, value):
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    main()
