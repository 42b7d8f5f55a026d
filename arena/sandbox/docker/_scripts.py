"""What runs in a container to serve commands: shell scripts, because a benchmark's image has nothing else for certain.

They are POSIX shell. The first two use nothing but what is built into it, where it counts: a sandbox may have as many
processes as it may.
"""

from __future__ import annotations

__all__ = ["KEEPER", "LONG", "READ", "RUNNER", "SHELL", "WRITE"]

_TEXT = r"""
read_text() {
  ARENA_TEXT=
  while [ "$1" -gt 0 ]; do
    IFS= read -r ARENA_LINE <&7
    ARENA_TEXT="$ARENA_TEXT$ARENA_LINE
"
    set -- $(($1 - 1))
  done
}
"""

KEEPER = r"""
look() {
  state= parent=
  while read -r key value rest; do
    case $key in State:) state=$value ;; PPid:) parent=$value; return 0 ;; esac
  done < "/proc/$1/status"
  return 1
}
runs() { look "$1" && case $state in Z | X) return 1 ;; esac; }
scan() {
  all=
  for folder in /proc/[0-9]*; do
    if runs "${folder#/proc/}"; then all="$all ${folder#/proc/}:$parent"; fi
  done
}
descend() {
  found=" $1 " again=yes
  while [ "$again" ]; do
    again=
    for pair in $all; do
      case $found in *" ${pair%:*} "*) continue ;; esac
      case $found in *" ${pair#*:} "*) found="$found${pair%:*} " again=yes ;; esac
    done
  done
}
end() {
  kill -STOP -1
  scan
  descend "$1"
  ended=
  for pid in $found; do
    case " $2 " in *" $pid "*) continue ;; esac
    kill -KILL "$pid" && ended="$ended $pid"
  done
  kill -CONT -1
  passes=0
  for pid in $ended; do
    while runs "$pid" && [ $((passes += 1)) -lt 20000 ]; do :; done
  done
}
clear() {
  passes=0
  while [ $((passes += 1)) -lt 2000 ]; do
    kill -KILL -1
    scan
    left=
    for pair in $all; do
      case ${pair%:*} in 1 | $$) ;; *) left=yes ;; esac
    done
    [ "$left" ] || return 0
  done
}
exec 2> /dev/null
set -- "$(command -v bash)"
echo "ready ${1:-sh}"
while read -r word ticket root spared; do
  case $word in
    end) end "$root" "$spared" ;;
    clear) clear ;;
  esac
  echo "done $ticket"
done
"""
"""The first process of a container but for Docker's init: it ends what it is told to.

``end TICKET ROOT SPARED`` ends what descends from a process, and that process, but for those that are spared;
``clear TICKET`` ends everything; ``ping TICKET`` nothing. ``done TICKET`` is the answer. All processes are held while
their descent is looked up, so that none escapes by forking.
"""

_BEGIN = r"""
IFS= read -r mark
echo "$PPID $$"
exec 8>&1 9>&2 2> /dev/null
say() {
  printf '%s%s\n' "$mark" "$1" >&8
  printf '%s%s\n' "$mark" "$1" >&9
  exit 0
}
"""

RUNNER = (
    _BEGIN
    + r"""
cd -- @DIRECTORY@ || say directory
command -v -- @PROGRAM@ > /dev/null || say program
(exec @WORDS@) 2>&9 8>&- 9>&-
say $?
"""
)
"""Runs a program with its arguments, and says what became of it.

The first line of its input is the mark, the rest is for the program. It writes its parent's and its own number to its
output, then comes the program's, then the mark with the exit code; on the error stream only the mark.
"""

LONG = (
    _TEXT
    + _BEGIN
    + r"""
cd -- @DIRECTORY@ || say directory
IFS= read -r lines
exec 7<&0
read_text "$lines"
(eval "$ARENA_TEXT") 2>&9 7<&- 8>&- 9>&-
say $?
"""
)
"""Runs a script that is too long for an argument: how many lines it has, and the lines, follow the mark."""

SHELL = (
    _TEXT
    + r"""
exec 7<&0 8>&1 9>&2 < /dev/null
echo "$PPID $$"
ARENA_COUNT=0
while read -r ARENA_NUMBER ARENA_MARK ARENA_LINES <&7; do
  [ "$ARENA_NUMBER" = $((ARENA_COUNT += 1)) ] || exit 125
  read_text "$ARENA_LINES"
  eval "$ARENA_TEXT" 7<&- 8>&- 9>&-
  ARENA_CODE=$?
  printf '%s%s\n' "$ARENA_MARK" "$ARENA_CODE" >&8
  printf '%s%s\n' "$ARENA_MARK" "$ARENA_CODE" >&9
done
"""
)
"""A shell that lives on: a line with a number, a mark and a number of lines comes before each command."""

READ = r"""
[ -d "$1" ] && exit 92
[ -e "$1" ] || exit 91
[ -f "$1" ] || exit 93
[ -r "$1" ] || exit 94
exec head -c "$2" -- "$1"
"""
"""Writes the beginning of a file, or ends with a number of `_files.REASONS`."""

WRITE = r"""
[ -d "$1" ] && exit 92
if [ -e "$1" ]; then
  [ -f "$1" ] || exit 93
  exec cat > "$1"
fi
[ -d "${1%/*}/" ] || mkdir -p -- "${1%/*}" || exit 95
umask 077
cat > "$1" && chmod "$2" "$1"
"""
"""Writes its input to a file."""
