# shellcheck shell=bash
# Sourced by every script: where things are kept, and which tools are used.
#
# Everything that can be built again lives in one cache folder, outside the clone, so that a
# fresh clone starts warm. An already set CARGO_TARGET_DIR is respected.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/reticle
TOOLS=$CACHE/tools
mkdir -p "$TOOLS"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
# Servers that tests start (mosquitto) lie where Debian does not let ordinary users look.
export PATH=$TOOLS/bin:$TOOLS/venv/bin:$PATH:/usr/sbin

# The same words for every script.
say() { printf '%s\n' "$*" >&2; }
die() {
    say "$(basename "$0"): $*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Whether version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# The oldest Rust that builds this, from the one place where it is written.
RUST_WANTED=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

# Whether the cargo at $1 works here (rustup's proxy fails without the pinned toolchain) and is
# new enough.
cargo_fits() {
    local version
    version=$("$1" --version 2>/dev/null | cut -d' ' -f2) || return 1
    [ -n "$version" ] && at_least "$version" "$RUST_WANTED"
}

# rustup's toolchain where there is one that fits, else Debian's (rustc-web), which a rustup
# without the toolchain would otherwise hide.
if ! cargo_fits cargo && cargo_fits /usr/bin/cargo; then
    export PATH=$TOOLS/bin:$TOOLS/venv/bin:/usr/bin:$PATH
fi

# Runs a command, and says how long it took. Usage: timed NAME COMMAND...
timed() {
    local name=$1 start=$SECONDS code=0
    shift
    "$@" || code=$?
    say "── $name: $((SECONDS - start)) s"
    return "$code"
}

# The program that was built, or that RETICLE names; dies where there is none.
built_program() {
    local binary=${RETICLE:-$CARGO_TARGET_DIR/release/reticle}
    [ -x "$binary" ] || die "nothing is built at $binary yet: run \`make run\` or \`make bench\` first"
    printf '%s\n' "$binary"
}

# A free TCP port of this machine.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
