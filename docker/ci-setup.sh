#!/usr/bin/env bash
# Installs what tests/docker needs to start a Docker daemon of its own and to make a base image for it.
# Ends with 0 where it cannot, and says why: those tests are then skipped, with their reason.
set -u

missing=()
command -v dockerd >/dev/null || missing+=(docker.io)
command -v debootstrap >/dev/null || missing+=(debootstrap)

give_up() {
    echo "docker/ci-setup.sh: $1; the tests that need Docker will be skipped"
    exit 0
}

[ ${#missing[@]} -gt 0 ] || { echo "docker/ci-setup.sh: dockerd and debootstrap are here"; exit 0; }
[ "$(id -u)" -eq 0 ] || give_up "not root, so ${missing[*]} cannot be installed"
command -v apt-get >/dev/null || give_up "no apt-get, so ${missing[*]} cannot be installed"

# The package would start a daemon of its own, with a bridge and firewall rules: an existing policy stays, else deny.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi

run_apt() {
    local log
    log=$(timeout 600 apt-get -o Acquire::Retries=3 "$@" 2>&1) && return
    tail -n 3 <<<"$log"
    give_up "apt-get $1 failed"
}

export DEBIAN_FRONTEND=noninteractive
run_apt update
run_apt install --yes --no-install-recommends "${missing[@]}"
# Newer releases of Debian ship the client apart from the daemon.
command -v docker >/dev/null || run_apt install --yes --no-install-recommends docker-cli
echo "docker/ci-setup.sh: installed ${missing[*]}"
