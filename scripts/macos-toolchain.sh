# Sourced by scripts/check-macos and scripts/release: what compiling for macOS takes on a machine that is not a Mac.
# Zig links; the standard library is built with the program, because distributions have it compiled for Linux only. Its source is that of
# Debian's package for the very version of rustc.

CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/nix-unroot
# Where Debian has packages of current Rust: those of a suite, and of the rustc-web that browsers are built with.
RUST_SOURCES="deb http://deb.debian.org/debian trixie-backports main
deb http://deb.debian.org/debian-security bookworm-security main"

# Makes `cargo zigbuild` work for macOS; otherwise says why not, on standard output, and fails.
macos_toolchain() {
    if ! command -v dpkg-deb >/dev/null || ! command -v apt-get >/dev/null; then
        echo "this needs Debian's dpkg and apt"
        return 1
    fi
    if ! get_zig; then
        echo "no zig and cargo-zigbuild to be had from PyPI (python3 with venv, network)"
        return 1
    fi
    PATH=$CACHE/zig/bin:$PATH
    rust=$(rustc --version | cut -d' ' -f2)
    place=$(rustc --print sysroot)/lib/rustlib/src/rust/library
    [ ! -f "$place/std/Cargo.toml" ] || return 0
    if [ ! -d "$CACHE/rust-src-$rust" ] && ! get_source "$CACHE/rust-src-$rust"; then
        echo "no source of Rust $rust's standard library to be had from Debian"
        return 1
    fi
    mkdir -p "$(dirname "$place")" && ln -sfn "$CACHE/rust-src-$rust" "$place"
}

# -Zbuild-std is for nightly compilers, unless one says that one knows.
macos_build() {
    RUSTC_BOOTSTRAP=1 cargo zigbuild --locked --bins -p nix-unroot -p nix-root-scan -p nix-daemon-gate -p nix-build-broker \
        -Zbuild-std=std,panic_abort "$@"
}

# Cargo-zigbuild and zig from PyPI, in a place of their own.
get_zig() {
    [ ! -x "$CACHE/zig/bin/cargo-zigbuild" ] || return 0
    python3 -m venv "$CACHE/zig" >/dev/null 2>&1 || return
    "$CACHE/zig/bin/pip" --quiet install ziglang cargo-zigbuild 2>/dev/null
}

# Apt with lists and sources of its own: the machine's stay as they are.
apt_apart() {
    "$@" -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
        -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root 2>/dev/null
}

# Unpacks the source of the standard library of this Rust to $1.
get_source() {
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/unpacked"
    echo "$RUST_SOURCES" >"$work/sources.list"
    unpack_source "$1" && status=0 || status=1
    rm -rf "$work"
    return "$status"
}

unpack_source() {
    apt_apart apt-get -qq update || return
    package=$(apt_apart apt-cache madison rust-src rust-web-src |
        awk -v version="$rust" 'index($3, version "+") == 1 || index($3, version "-") == 1 { print $1 "=" $3; exit }')
    [ -n "$package" ] || return
    (cd "$work" && apt_apart apt-get -qq download "$package") || return
    dpkg-deb -x "$work"/*.deb "$work/unpacked" || return
    mv "$work/unpacked/usr/src/rustc-$rust/library" "$1"
}
