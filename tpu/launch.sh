#!/usr/bin/env bash
# Run a command of this repository on every worker of a Cloud TPU slice, through a queued resource.
#
#   tpu/launch.sh create                 request the slice and wait until it is active
#   tpu/launch.sh setup                  copy the committed files of this repository to every worker and run `make setup` there
#   tpu/launch.sh run COMMAND...         run COMMAND on every worker, in the repository, with .venv/bin first on PATH
#   tpu/launch.sh up COMMAND...          create, setup and run
#   tpu/launch.sh delete                 delete the slice; it costs money until you do
#
# --dry-run before the verb prints the gcloud commands without running them. Settings are environment variables (default):
#   TPU_NAME (wizardcoder)  TPU_ZONE (us-west4-a)  TPU_TYPE (v5litepod-32)  TPU_RUNTIME (v2-alpha-tpuv5-lite)
#   TPU_SPOT (if set: preemptible)  TPU_POLL_S (30, seconds between polls); project and account are gcloud's
#
# Tested only with a stand-in for gcloud; not run on a real pod.
set -euo pipefail

name=${TPU_NAME:-wizardcoder}
zone=${TPU_ZONE:-us-west4-a}
type=${TPU_TYPE:-v5litepod-32}
runtime=${TPU_RUNTIME:-v2-alpha-tpuv5-lite}
poll_s=${TPU_POLL_S:-30}
remote_dir=wizardcoder_jax
dry_run=

log() { echo "launch: $*" >&2; }
fail() { log "$@"; exit 2; }

run_gcloud() {
  if [ -n "$dry_run" ]; then
    printf 'gcloud'
    printf ' %q' "$@"
    printf '\n'
  else
    gcloud "$@"
  fi
}

on_all_workers() {
  run_gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

create() {
  local spot=()
  if [ -n "${TPU_SPOT:-}" ]; then
    spot=(--spot)
  fi
  run_gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" \
    --accelerator-type="$type" --runtime-version="$runtime" "${spot[@]}"
  wait_until_active
}

wait_until_active() {
  local state
  while true; do
    state=$(run_gcloud compute tpus queued-resources describe "$name" --zone="$zone" --format='value(state.state)')
    if [ -n "$dry_run" ]; then
      echo "$state"
      return
    fi
    log "$name is ${state:-unknown}"
    case $state in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING)
        log "$name will not become active; run 'tpu/launch.sh delete', then create it again"
        exit 1
        ;;
    esac
    sleep "$poll_s"
  done
}

setup() {
  local archive
  archive=$(mktemp --suffix=.tar.gz)
  # shellcheck disable=SC2064  # expand the name now
  trap "rm -f '$archive'" EXIT
  git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD
  run_gcloud compute tpus tpu-vm scp "$archive" "$name:$remote_dir.tar.gz" --zone="$zone" --worker=all
  on_all_workers "mkdir -p $remote_dir && tar -xzf $remote_dir.tar.gz -C $remote_dir && cd $remote_dir && make setup EXTRA=tpu"
}

run_command() {
  [ $# -gt 0 ] || fail "run needs a command, e.g. tpu/launch.sh run python -m wizardcoder_jax.train --help"
  on_all_workers "cd $remote_dir && export PATH=\$PWD/.venv/bin:\$PATH && $(printf '%q ' "$@")"
}

delete() {
  run_gcloud compute tpus queued-resources delete "$name" --zone="$zone" --force --quiet
}

usage() {
  sed -n '2,/^$/{/^#/!d;s/^# \{0,1\}//p}' "$0"
}

if [ "${1:-}" = --dry-run ]; then
  dry_run=yes
  shift
fi
verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
  create | setup | delete | up | run) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
[ -n "$dry_run" ] || command -v gcloud > /dev/null || fail "gcloud not found; install the Google Cloud SDK, or try --dry-run"
case $verb in
  create) create ;;
  setup) setup ;;
  run) run_command "$@" ;;
  up)
    [ $# -gt 0 ] || fail "up needs a command to run when the slice is ready"
    create
    setup
    run_command "$@"
    ;;
  delete) delete ;;
esac
