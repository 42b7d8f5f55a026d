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
* ``still``: whether none has run since ``stop``. With a descriptor, to which ``done`` or ``moved`` is written.
* ``open PATH FLAGS MODE``, with a socket: on that comes a packet, with an open file or an error's number.

A command's runner is its parent, adopts what its descendants leave behind, and ends after the last of them. So what
came of a command is what descends from its runner. What a runner that was killed leaves to this process is ended.

This process is in none of the sandbox's control groups, so that no lack of memory, processes or time that commands
bring about is its own. A runner goes there before it has a command; as that takes a moment, one waits for the next. If
it cannot, this process ends, and everything with it: no command runs outside.
"""

# mypy: ignore-errors

import _signal as signal  # `signal` and `socket` import much that is not needed
import _socket as socket
import ctypes
import errno
import os
import resource
import select
import sys
import time

_SET_DUMPABLE, _SET_CHILD_SUBREAPER = 4, 36
_MOST_FDS = 16
_MOST_TRIES, _TAKE_S = 50, 2.0
_OUTSIDE = b"e"
_PASSES, _AT_ONCE, _PAUSE_S, _SETTLE_PASSES = 200, 10, 0.005, 200


def main():
    """Serve until the control socket is closed, and end with everything that runs."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)  # whoever has it gets what is meant for this process
    groups = [int(fd) for fd in sys.argv[2].split(",") if fd]
    for fd in groups:
        os.set_inheritable(fd, False)
    limits = [(int(kind), int(most)) for kind, most in (word.split("=") for word in sys.argv[3:])]
    _process_control(_SET_DUMPABLE, 0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # also the most descriptors in flight that it may add to
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    runners = _Runners(groups, limits)
    runners.prepare()
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    poll.register(wake, select.POLLIN)
    os.write(control.fileno(), b"ready")
    while True:
        events = dict(poll.poll())
        if wake in events:
            os.read(wake, 4096)
            runners.reap()
        if control.fileno() in events and not _serve(control, runners):
            return


def _serve(control, runners):
    """Take one request; return whether there will be more."""
    fds, data = _received(control)
    if not data:
        return False
    try:
        _answer(fds, runners)
    except (OSError, IndexError, ValueError):  # a request that cannot be served is not answered, and nothing more
        pass
    finally:
        for fd in fds:
            os.close(fd)
    try:
        runners.prepare()
    except OSError:  # the next command tries again
        pass
    return True


def _received(channel):
    data, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4 * _MOST_FDS), socket.MSG_CMSG_CLOEXEC)
    return [fd for _, _, packed in ancillary for fd in memoryview(packed).cast("i")], data


def _words(body):
    kind, *words = os.pread(body, os.fstat(body).st_size, 0).split(b"\0")
    return kind, words


def _answer(fds, runners):
    kind, words = _words(fds[0])
    answer = b"done"
    if kind == b"run":
        runners.run(words[0], fds)
        return
    if kind == b"open":
        _open(words, fds[1])
        return
    if kind == b"kill":
        runners.kill(words[0], words[1] == b"children")
    elif kind == b"stop":
        runners.hold()
    elif kind == b"still" and not runners.are_still():
        answer = b"moved"
    elif kind == b"continue":
        _signal_all(signal.SIGCONT)
    elif kind == b"clear":
        runners.clear()
    os.write(fds[1], answer)


class _Runners:
    """The runners of commands by the commands' names, and one that waits for the next command."""

    def __init__(self, groups, limits):
        self._groups, self._limits = groups, limits
        self._named = {}
        self._spare = None
        self._held = None

    def prepare(self, not_its_own=()):
        """Have a runner that waits, without some descriptors."""
        if self._spare is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                for fd in not_its_own:
                    os.close(fd)
                _be_runner(theirs, self._groups, self._limits)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._spare = pid, ours

    def run(self, name, fds):
        """Hand a request to a runner."""
        try:
            for _ in range(_MOST_TRIES):
                self.prepare(fds)
                (pid, channel), self._spare = self._spare, None
                try:
                    if self._is_taken(pid, channel, fds):
                        break
                finally:
                    channel.close()
            else:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._named[name] = pid
        except OSError as error:  # there are as many processes as there may be
            _say(fds[4], b"error %s" % os.fsencode(error.strerror))

    def kill(self, name, spare_first):
        """End what came of a command."""
        _kill(self._named.get(name), spare_first)

    def hold(self):
        """Stop all processes, and remember how often each has run."""
        _signal_all(signal.SIGSTOP)
        for _ in range(_SETTLE_PASSES):
            self._held = _activity()
            if self._held is not None:
                return
            time.sleep(_PAUSE_S)

    def are_still(self):
        """Return whether no process has run since they were held: any can be woken, as by a timer of its own."""
        return self._held is not None and self._held == _activity()

    def clear(self):
        """End all other processes, and wait until they are gone."""
        _signal_all(signal.SIGKILL)
        self._drop_spare()
        try:
            while True:
                os.wait()
        except ChildProcessError:
            self._named.clear()

    def reap(self):
        """Bury what has ended, and forget the runners among it."""
        is_killed = False
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid == 0:
                break
            if self._spare is not None and self._spare[0] == pid:
                self._drop_spare()
            for name in [name for name, runner in self._named.items() if runner == pid]:
                del self._named[name]
            is_killed = is_killed or os.WIFSIGNALED(code)
        if is_killed:
            self._end_strays()

    def _is_taken(self, pid, channel, fds):
        """Hand a request to the runner that waits; return whether it has taken it, and was not killed while it waited.

        Raises:
            OSError: It took it too late, and was ended, so that the request is not served twice.
        """
        try:
            os.kill(pid, signal.SIGCONT)  # a command may have stopped it
            packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
            channel.sendmsg([b"r"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
            channel.settimeout(_TAKE_S)
            answer = channel.recv(1)
        except (ConnectionError, ProcessLookupError):
            answer = _last_word(channel)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._end_strays()
            answer = b""
            if _last_word(channel):
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        if answer == _OUTSIDE:
            raise SystemExit("no process can be put into the control groups")
        return bool(answer)

    def _drop_spare(self):
        if self._spare is not None:
            self._spare[1].close()
            self._spare = None

    def _end_strays(self):
        """End what descends from this process by no runner."""
        empty_passes = 0
        for number in range(_PASSES):
            if number >= _AT_ONCE:
                time.sleep(_PAUSE_S)
            kept = {*self._named.values(), *(() if self._spare is None else self._spare[:1])}
            parents, _ = _parents()
            roots = {pid for pid, parent in parents.items() if parent == os.getpid()} - kept
            _end(roots | _descendants(roots, parents))
            empty_passes = 0 if roots else empty_passes + 1
            if empty_passes == 2:  # what loses its parent while it is looked for is seen the second time
                return
        _signal_all(signal.SIGKILL)


def _last_word(channel):
    """Return what a runner that has ended said at last; nothing where it did not read all that it was told."""
    channel.settimeout(0)
    try:
        return channel.recv(1)
    except OSError:
        return b""


def _be_runner(channel, groups, limits):
    """Wait for a command, start it, and outlive what comes of it."""
    status = None
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        try:
            for group in groups:
                os.write(group, b"0")
                os.close(group)
        except OSError:
            channel.send(_OUTSIDE)
            raise
        _process_control(_SET_CHILD_SUBREAPER, 1)
        os.setsid()
        (body, *fds), _ = _received(channel)
        channel.send(b"t")
        channel.close()
        status = fds[3]
        _, (_, directory, count, *rest) = _words(body)
        os.close(body)
        arguments, variables = rest[: int(count)], rest[int(count) :]
        child = os.fork()
        if child == 0:
            _become(directory, arguments, variables, fds, limits)
        for fd in (*fds[:3], *fds[4:]):
            os.close(fd)
        _outlive(child, status)
    except OSError as error:
        if status is not None:
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
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
        _prefer_to_be_ended()
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
        found = _descendants({runner}, parents)
        if spare_first:
            own = [pid for pid in found if parents[pid] == runner]
            own.sort(key=lambda pid: (began[pid], pid))  # it began before what it has adopted
            found -= set(own[:1])
        if not found:
            if not spare_first:
                os.kill(runner, signal.SIGKILL)  # it may have been stopped
            return
        _end(found)
    _signal_all(signal.SIGKILL)  # it forks faster than it can be counted


def _end(found):
    for kind in (signal.SIGSTOP, signal.SIGKILL):  # what is stopped does not fork
        for pid in found:
            try:
                os.kill(pid, kind)
            except ProcessLookupError:
                pass


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


def _descendants(roots, parents):
    children = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found, waiting = set(), list(roots)
    while waiting:
        new = [pid for pid in children.get(waiting.pop(), ()) if pid not in found]
        found.update(new)
        waiting += new
    return found


def _activity():
    """Return how often each thread but this one has given up a processor; None if one is running."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            threads = os.listdir(f"/proc/{name}/task")
        except OSError:
            continue
        for thread in threads:
            try:
                with open(f"/proc/{name}/task/{thread}/status", "rb", 0) as file:
                    lines = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
            except OSError:
                continue
            if lines[b"State"].split()[0] == b"R":
                return None
            found[thread] = lines[b"voluntary_ctxt_switches"], lines[b"nonvoluntary_ctxt_switches"]
    return found


def _prefer_to_be_ended():
    """Say that this process is to be ended first where there is no memory left, before what serves it."""
    try:
        with open("/proc/self/oom_score_adj", "wb", 0) as file:
            file.write(b"1000")
    except OSError:
        pass


def _process_control(option, value):
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    main()
