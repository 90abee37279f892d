#!/usr/bin/env bash
# Creates the virtual environment and installs jaxserve in it, editable. Does nothing when that is done already.
#
#   scripts/venv.sh [EXTRA ...] [--optional EXTRA]
#
# EXTRA names an optional dependency set of pyproject.toml; one after --optional may fail to install.
# VENV is the directory (.venv), PYTHON the interpreter to build it from (the newest of 3.13, 3.12, 3.11 that works).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${VENV:-.venv}
state=$venv/.jaxserve

say() { printf 'setup: %s\n' "$*" >&2; }

die() {
  say "$@"
  exit 2
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
can_make_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the first interpreter that is new enough and can build an environment with pip in it.
find_python() {
  local candidate incomplete=""
  # Unquoted on purpose: without PYTHON the candidates are a list.
  # shellcheck disable=SC2086
  for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
    is_new_enough "$candidate" || continue
    if can_make_venv "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
    incomplete=$candidate
  done
  if [ -n "$incomplete" ]; then
    say "$incomplete has no ensurepip, so it can't make a virtual environment with pip."
    die "On Debian and Ubuntu: sudo apt-get install $("$incomplete" -c \
      'import sys; print("python{}.{}-venv".format(*sys.version_info))')"
  fi
  die "No Python 3.11 or newer found${PYTHON:+ at PYTHON=$PYTHON}. Install one or set PYTHON=/path/to/python3."
}

# What an installation is valid for. A moved checkout or a changed pyproject.toml makes it stale.
fingerprint() { printf '%s %s\n' "$(cksum <pyproject.toml)" "$PWD"; }

is_current() {
  [ -f "$state" ] && [ "$(head -n 1 "$state")" = "$(fingerprint)" ] && "$venv/bin/python" -c '' 2>/dev/null
}

has_extra() { grep -qxF -- "$1" "$state"; }

all_installed() {
  local extra
  is_current || return 1
  for extra in "${required[@]}" "${optional[@]}"; do
    has_extra "$extra" || return 1
  done
}

create() {
  local python
  if is_new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  python=$(find_python)
  say "creating $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
}

# The arguments with commas between them.
joined() {
  local IFS=,
  printf '%s' "$*"
}

# Installs the package with the given comma-separated extras.
install() {
  say "installing jaxserve${1:+[$1]}"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${1:+[$1]}"
}

required=()
optional=()
into_optional=false
for argument in "$@"; do
  case $argument in
    --optional) into_optional=true ;;
    -*) die "unknown option $argument" ;;
    *) if $into_optional; then optional+=("$argument"); else required+=("$argument"); fi ;;
  esac
done

if all_installed; then exit 0; fi

if command -v flock >/dev/null; then
  # Two set-ups at once would damage each other; the second waits and then finds everything done.
  exec 9>"$venv.lock"
  flock 9
  if all_installed; then exit 0; fi
fi

create
if is_current; then cp "$state" "$state.new"; else fingerprint >"$state.new"; fi
installed=("${required[@]}")
install "$(joined "${installed[@]}")"
if [ "${#required[@]}" -gt 0 ]; then printf '%s\n' "${required[@]}" >>"$state.new"; fi
for extra in "${optional[@]}"; do
  # Together with what is there: alone, it could bring a version that an earlier extra can't work with.
  if install "$(joined "${installed[@]}" "$extra")"; then
    installed+=("$extra")
    printf '%s\n' "$extra" >>"$state.new"
  else
    say "'$extra' can't be installed now; what needs it will be skipped"
  fi
done
mv "$state.new" "$state"
