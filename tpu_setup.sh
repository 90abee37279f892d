#!/usr/bin/env bash
# Sets a fresh Ubuntu TPU VM up and starts serving. Safe to run again: what is done already is skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'USAGE'
Usage: ./tpu_setup.sh [--no-start] [MODEL [PORT]] [flags of 'jaxserve serve' ...]

Installs what is missing (Python and its venv package through apt, then jaxserve[tpu] in .venv), checks that JAX
sees the TPU, and starts the server. On a machine without a TPU it says so and serves on the CPU.

  MODEL       model directory, .gguf file, hub id, gs:// path, story or smollm2 (default: $MODEL, or smollm2 for "")
  PORT        port to listen on (default: $PORT, or 8000)
  --no-start  set up only
  --help      this text

Examples:
  ./tpu_setup.sh
  ./tpu_setup.sh ~/Llama-3.1-8B-Instruct 8000 --host 0.0.0.0 --api-key "$KEY"
USAGE
}

say() { printf 'tpu_setup: %s\n' "$*" >&2; }

die() {
  say "$@"
  exit 2
}

readonly VENV_DIR=${VENV:-.venv}
readonly NEEDED_MIB=3072

start=true
model=${MODEL:-}
port=${PORT:-8000}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --no-start) start=false ;;
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
  if [[ $model == /* ]] && [ ! -e "$model" ]; then die "MODEL '$model' does not exist"; fi
}

check_machine() {
  [ "$(uname -s)" = Linux ] || die "this script is for Linux; elsewhere use 'make serve'"
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

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "needs root for: $*"
  fi
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
      has_python && return
    fi
  done
  die "apt offers no working Python 3.11 or newer; install one and set PYTHON=/path/to/python3"
}

# TPU chips are /dev/accelN up to v4 and VFIO groups from v5e on.
has_tpu_device() { compgen -G '/dev/accel[0-9]*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; }

# Asks JAX itself. A pod slice whose other hosts do not start waits for ever, hence the limit.
jax_sees_tpu() {
  timeout 180 "$VENV_DIR/bin/python" -c 'import jax, sys; sys.exit(jax.default_backend() != "tpu")'
}

install_package() {
  if ! has_tpu_device; then
    say "no TPU found (neither /dev/accel* nor /dev/vfio/*): falling back to the CPU"
    scripts/venv.sh
    export JAX_PLATFORMS=cpu
    return
  fi
  scripts/venv.sh tpu
  if jax_sees_tpu; then
    say "JAX sees $("$VENV_DIR/bin/python" -c 'import jax; print(len(jax.devices()), jax.devices()[0].device_kind)')"
  else
    say "there is a device node, but JAX sees no TPU (see above): falling back to the CPU"
    export JAX_PLATFORMS=cpu
  fi
}

parse "$@"
check_machine
install_python
install_package
if ! $start; then
  say "ready; start with: $VENV_DIR/bin/jaxserve serve"
  exit 0
fi
say "starting on port $port; stop with Ctrl-C"
exec "$VENV_DIR/bin/jaxserve" serve ${model:+"$model"} --port "$port" "${flags[@]}"
