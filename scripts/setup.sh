# Sourced by scripts/test and scripts/demo: installs what they need on a fresh Debian 12, and says what is missing
# elsewhere. It installs nothing when everything is there.

# Oldest Rust that builds this workspace (rust-version in Cargo.toml).
MIN_RUST_MINOR=90

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Debian packages: a C compiler for SQLite, the static C library for verify's builder, what makes and boots machines, what
# install.sh is tested with, what renders the manual pages, and what holds documents against their schemas.
PACKAGES="gcc libc6-dev ca-certificates mmdebstrap systemd-container debian-archive-keyring patchelf strace
qemu-system-x86 e2fsprogs zstd xz-utils procps curl wget busybox bsdutils shellcheck qemu-utils groff
python3-jsonschema python3-venv"

rust_is_new_enough() {
    command -v cargo >/dev/null && command -v rustc >/dev/null || return 1
    minor=$(rustc --version | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ "${minor:-0}" -ge "$MIN_RUST_MINOR" ]
}

install_packages() {
    missing=
    for package in $PACKAGES "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || die "this needs Debian's packages:$missing; there is no apt-get here"
    apt-get update -qq >/dev/null || die "apt-get update failed, and these packages are missing:$missing"
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
        die "cannot install these packages:$missing"
}

setup() {
    [ "$(id -u)" = 0 ] || die "this makes and boots machines, so it needs root: run it with sudo"
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    install_packages
    if ! rust_is_new_enough; then
        # Debian 12 carries a current Rust under these names, for building web browsers.
        install_packages rustc-web cargo-web
        rust_is_new_enough || die "this needs Rust 1.$MIN_RUST_MINOR or newer: install it with rustup (https://rustup.rs)"
    fi
}
