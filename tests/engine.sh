#!/usr/bin/env bash
# Starts a Docker daemon with the base image that the tests of isolation level 3 use: tests/engine.sh up|down
# Without it they are skipped. Needs root, docker.io and debootstrap; prints the DOCKER_HOST to export.
set -euo pipefail
folder=${TREADLE_TEST_ENGINE:-/var/tmp/treadle-test-engine}
export DOCKER_HOST=unix://$folder/docker.sock
image=treadle-test/debian:12
case ${1:-} in
up)
    mkdir -p "$folder"
    if ! docker info >/dev/null 2>&1; then
        setsid dockerd --bridge none --iptables=false --ip-forward=false --ip-masq=false \
            --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
            --host "$DOCKER_HOST" >"$folder/log" 2>&1 &
        for _ in $(seq 100); do docker info >/dev/null 2>&1 && break; sleep 0.2; done
    fi
    if ! docker image inspect $image >/dev/null 2>&1; then
        test -d "$folder/root/usr" || debootstrap --variant=minbase \
            --include=python3,python3-venv,ca-certificates bookworm "$folder/root" >"$folder/debootstrap.log" 2>&1
        tar -C "$folder/root" -c . | docker import - $image >/dev/null
    fi
    echo "export DOCKER_HOST=$DOCKER_HOST"
    ;;
down)
    test -f "$folder/pid" && kill "$(cat "$folder/pid")"
    ;;
*)
    echo "usage: tests/engine.sh up|down" >&2
    exit 2
    ;;
esac
