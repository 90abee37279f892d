#!/usr/bin/env bash
# Sets a fresh Ubuntu TPU VM, or every worker of a pod, up and starts serving. Safe to run again: what is done is skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'USAGE'
Usage: ./tpu_setup.sh [options] [MODEL [PORT]] [flags of 'jaxserve serve' ...]

Installs what is missing (Python and its venv package through apt, then jaxserve[tpu] in .venv), checks that JAX
sees the TPU, and starts the server. Without a TPU it refuses, before anything is installed.

  MODEL         model directory, .gguf file, hub id, gs:// path, story or smollm2 (default: $MODEL, or smollm2 for "")
  PORT          port to listen on (default: $PORT, or 8000)

  --no-start    set up only
  --dry-run     check everything and print the commands; change nothing
  --systemd     install and start a service (jaxserve.service: restarts, limits, log in the journal) instead of
                serving here; settings that others should not see belong in /etc/jaxserve.env (JAXSERVE_API_KEYS=...)
  --uninstall   stop and remove the service and the environment; models and compiled programs in ~/.cache stay
  --worker=all  do it on every worker of the pod that TPU_NAME and ZONE name, through gcloud; run it on your own machine
  --allow-cpu   serve on the CPU where there is no TPU
  --help        this text

Examples:
  ./tpu_setup.sh
  ./tpu_setup.sh --systemd gs://bucket/Llama-3.1-8B-Instruct 8000 --host 0.0.0.0
  TPU_NAME=pod ZONE=us-east5-b ./tpu_setup.sh --worker=all --systemd Qwen/Qwen3-235B-A22B 8000 --host 0.0.0.0
USAGE
}

say() { printf 'tpu_setup: %s\n' "$*" >&2; }

die() {
  say "$@"
  exit 2
}

readonly VENV_DIR=${VENV:-.venv}
readonly NEEDED_MIB=3072
readonly UNIT_DIR=${SYSTEMD_DIR:-/etc/systemd/system}
readonly UNIT=jaxserve.service
readonly OPTIONS_TABLE=docs/configuration.md
readonly REMOTE_DIR=jaxserve

start=true
dry=false
systemd=false
uninstall=false
workers=""
allow_cpu=false
model=${MODEL:-}
port=${PORT:-8000}
given=("$@")

# Runs a command that changes something, or prints it.
change() {
  if $dry; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

as_root() {
  if $dry || [ "$(id -u)" -eq 0 ]; then
    change "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "needs root for: $*"
  fi
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --no-start) start=false ;;
      --dry-run) dry=true ;;
      --systemd) systemd=true ;;
      --uninstall) uninstall=true ;;
      --allow-cpu) allow_cpu=true ;;
      --worker=all) workers=all ;;
      --worker*) die "the only choice is --worker=all; for one worker run the script there" ;;
      *) break ;;
    esac
    shift
  done
  if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    model=$1
    shift
    if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
      port=$1
      shift
    fi
  fi
  flags=("$@")
  case $port in
    '' | *[!0-9]*) die "PORT must be a number, got '$port'" ;;
  esac
  if [ "$workers" != all ] && [[ $model == /* ]] && [ ! -e "$model" ]; then die "MODEL '$model' does not exist"; fi
}

# Lines "FLAG KIND" of all flags that serve takes, from the table that is made of their declarations.
known_flags() {
  awk -F' *[|] *' '$3 ~ /^`--/ && $7 ~ /`serve`/ { gsub(/`/, "", $3); print $3, ($5 == "true or false" ? "switch" : "value") }' \
    "$OPTIONS_TABLE"
  echo "--config value"
}

# Refuses what 'jaxserve serve' would refuse, before minutes of installation.
check_flags() {
  local known kind name
  known=$(known_flags)
  while [ $# -gt 0 ]; do
    name=${1%%=*}
    kind=$(awk -v flag="$name" '$1 == flag || ($2 == "switch" && "--no-" substr($1, 3) == flag) { print $2 }' <<<"$known")
    case $name in
      --port) die "the port is the second argument: ./tpu_setup.sh MODEL PORT" ;;
      --no-start | --dry-run | --systemd | --uninstall | --allow-cpu | --worker) die "$name stands before MODEL" ;;
    esac
    [ -n "$kind" ] || die "'jaxserve serve' has no flag '$1'; see $OPTIONS_TABLE"
    if [ "$kind" = value ] && [ "$name" = "$1" ]; then
      [ $# -gt 1 ] || die "$1 needs a value"
      shift
    fi
    shift
  done
}

check_machine() {
  [ "$(uname -s)" = Linux ] || die "this script is for Linux; elsewhere use 'make serve'"
  if ! has_tpu_device && ! $allow_cpu; then
    die "no TPU found (neither /dev/accel* nor /dev/vfio/*); --allow-cpu serves on the CPU"
  fi
  if $systemd && ! command -v systemctl >/dev/null; then die "there is no systemctl here: leave --systemd out"; fi
  local free_mib
  free_mib=$(df --output=avail -m . | tail -n 1 | tr -d ' ')
  if [ ! -d "$VENV_DIR" ] && [ "$free_mib" -lt "$NEEDED_MIB" ]; then
    die "$free_mib MiB free in $PWD; the environment needs $NEEDED_MIB"
  fi
}

# True where some Python of at least 3.11 can make an environment with pip in it.
has_python() {
  local candidate
  for candidate in ${PYTHON:-"$VENV_DIR/bin/python" python3.13 python3.12 python3.11 python3}; do
    "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && return
  done
  return 1
}

install_python() {
  if has_python; then return; fi
  command -v apt-get >/dev/null || die "no Python 3.11 with venv found and no apt-get to install one"
  say "installing Python with apt"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  local version
  for version in 3.13 3.12 3.11; do
    if apt-cache show "python$version-venv" >/dev/null 2>&1; then
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "python$version" "python$version-venv"
      if $dry || has_python; then return; fi
    fi
  done
  $dry || die "apt offers no working Python 3.11 or newer; install one and set PYTHON=/path/to/python3"
}

# TPU chips are /dev/accelN up to v4 and VFIO groups from v5e on.
has_tpu_device() { compgen -G '/dev/accel[0-9]*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; }

# Workers of a pod see no TPU until all of them look for it: the server then finds out, which waits for the others.
is_one_of_several() {
  local endpoints=http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints
  [[ $(curl -sf -m 3 -H 'Metadata-Flavor: Google' "$endpoints" 2>/dev/null) == *,* ]]
}

# Asks JAX itself. A pod slice whose other hosts do not start waits for ever, hence the limit.
jax_sees_tpu() {
  JAX_PLATFORMS=tpu,cpu timeout 180 "$VENV_DIR/bin/python" -c 'import jax, sys; sys.exit(jax.default_backend() != "tpu")'
}

# Sets JAX_PLATFORMS, so that no server ever falls back to the CPU by itself.
install_package() {
  export JAX_PLATFORMS=tpu,cpu
  if ! has_tpu_device; then
    say "no TPU found: serving on the CPU, as --allow-cpu says"
    JAX_PLATFORMS=cpu
    change scripts/venv.sh
    return
  fi
  change scripts/venv.sh tpu
  if $dry || is_one_of_several; then return; fi
  if jax_sees_tpu; then
    say "JAX sees $("$VENV_DIR/bin/python" -c 'import jax; print(len(jax.devices()), jax.devices()[0].device_kind)')"
  elif $allow_cpu; then
    say "there is a device node, but JAX sees no TPU (see above): serving on the CPU, as --allow-cpu says"
    JAX_PLATFORMS=cpu
  else
    die "there is a device node, but JAX sees no TPU (see above); is another process using it?"
  fi
}

# An argument as ExecStart= reads it.
quoted() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//%/%%}
  printf '"%s"' "${text//\$/\$\$}"
}

unit() {
  local word line=""
  for word in "$@"; do line+=" $(quoted "$word")"; done
  cat <<UNIT
[Unit]
Description=jaxserve: LLM inference
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User=$(id -un)
WorkingDirectory=$PWD
Environment=JAX_PLATFORMS=$JAX_PLATFORMS PYTHONUNBUFFERED=1
EnvironmentFile=-/etc/jaxserve.env
ExecStart=${line# }
# Exit code 2: an option or the model is wrong, and starting again changes nothing.
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
KillMode=mixed
TimeoutStopSec=90
LimitNOFILE=65536
LimitMEMLOCK=infinity
LimitCORE=0
NoNewPrivileges=yes
StandardOutput=journal
StandardError=journal
SyslogIdentifier=jaxserve

[Install]
WantedBy=multi-user.target
UNIT
}

install_unit() {
  local written
  written=$(mktemp)
  unit "$@" >"$written"
  if $dry; then sed 's/^/| /' "$written"; fi
  as_root install -m 0600 "$written" "$UNIT_DIR/$UNIT"
  rm -f "$written"
  as_root systemctl daemon-reload
  as_root systemctl enable "$UNIT"
  as_root systemctl restart "$UNIT"
  say "$UNIT is started; its log: journalctl -u jaxserve -f; its state: curl http://127.0.0.1:$port/ready"
}

remove() {
  if [ -e "$UNIT_DIR/$UNIT" ]; then
    as_root systemctl disable --now "$UNIT"
    as_root rm -f "$UNIT_DIR/$UNIT"
    as_root systemctl daemon-reload
  fi
  change rm -rf "$VENV_DIR" "$VENV_DIR.lock"
  say "removed; models and compiled programs stay in ${XDG_CACHE_HOME:-$HOME/.cache}/jaxserve"
}

# The same on every worker, with one secret for all of them; what is not tracked stays here.
on_all_workers() {
  [ -n "${TPU_NAME:-}" ] && [ -n "${ZONE:-}" ] || die "--worker=all needs TPU_NAME and ZONE in the environment"
  $dry || command -v gcloud >/dev/null || die "--worker=all needs gcloud"
  local archive secret command="cd $REMOTE_DIR && JAXSERVE_HOST_SECRET_FILE=\$PWD/.host_secret ./tpu_setup.sh" word
  for word in "${given[@]}"; do
    if [ "$word" != --worker=all ] && [ "$word" != --dry-run ]; then command+=" $(printf '%q' "$word")"; fi
  done
  archive=$(mktemp --suffix=.tar.gz)
  secret=$(mktemp)
  # shellcheck disable=SC2064 # the names as they are now
  trap "rm -f '$archive' '$secret'" EXIT
  head -c 32 /dev/urandom | base64 >"$secret"
  change git archive --format=tar.gz --output="$archive" HEAD
  on_workers scp "$archive" "$TPU_NAME:jaxserve.tar.gz"
  on_workers scp "$secret" "$TPU_NAME:jaxserve.secret"
  on_workers ssh "$TPU_NAME" --command="mkdir -p $REMOTE_DIR && tar xzf jaxserve.tar.gz -C $REMOTE_DIR && \
install -m 0600 jaxserve.secret $REMOTE_DIR/.host_secret && rm jaxserve.tar.gz jaxserve.secret"
  on_workers ssh "$TPU_NAME" --command="$command"
}

on_workers() {
  local verb=$1
  shift
  change gcloud compute tpus tpu-vm "$verb" "$@" --zone="$ZONE" --worker=all
}

parse "$@"
check_flags "${flags[@]}"
if [ "$workers" = all ]; then
  on_all_workers
  exit 0
fi
if $uninstall; then
  remove
  exit 0
fi
check_machine
install_python
install_package
command=("$PWD/$VENV_DIR/bin/jaxserve" serve ${model:+"$model"} --port "$port" "${flags[@]}")
if [[ $VENV_DIR == /* ]]; then command[0]=$VENV_DIR/bin/jaxserve; fi
if [ -n "${JAXSERVE_HOST_SECRET_FILE:-}" ]; then command+=(--host-secret-file "$JAXSERVE_HOST_SECRET_FILE"); fi
if ! $start; then
  say "ready; start with: ${command[*]}"
elif $systemd; then
  install_unit "${command[@]}"
elif $dry; then
  change env "JAX_PLATFORMS=$JAX_PLATFORMS" "${command[@]}"
else
  say "starting on port $port; stop with Ctrl-C"
  exec "${command[@]}"
fi
