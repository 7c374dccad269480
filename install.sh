#!/bin/sh
# Fetches a release of nix-unroot, checks it, and runs it:
#
#     curl -fsSL https://github.com/nix-unroot/nix-unroot/releases/latest/download/install.sh | sh -s -- install
#
# The words after `--` go to nix-unroot (`install`, `migrate --dry-run`, `uninstall`, ...). Nothing stays behind but what that
# command says. Everything is in functions, and the last line starts them: half a script does nothing.
#
# NIX_UNROOT_RELEASE_URL   where the archives are, if not with the release (a mirror; http:// is taken only from here)
# NIX_UNROOT_...           options of nix-unroot itself, handed on
set -eu

# Both are filled in by scripts/release: the version, and a line `SHA256 ARCHIVE` for each system.
VERSION=
DIGESTS=

say() {
    printf 'install.sh: %s\n' "$*" >&2
}

die() {
    say "$*"
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# The name of this system in the archives' names.
system() {
    os=$(uname -s) machine=$(uname -m)
    case $machine in
        x86_64 | amd64) machine=x86_64 ;;
        aarch64 | arm64) machine=aarch64 ;;
    esac
    case $os in
        # A 32-bit userland on a 64-bit kernel cannot run the programs.
        Linux) [ "$(getconf LONG_BIT 2>/dev/null || echo 64)" = 64 ] || machine=$machine-32bit ;;
        Darwin)
            # A shell under Rosetta says x86_64 on a Mac that is not.
            [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || echo 0)" = 1 ] && machine=aarch64
            ;;
    esac
    printf '%s-%s\n' "$machine" "$(printf %s "$os" | tr '[:upper:]' '[:lower:]')"
}

# What the archive of a system holds.
programs_for() {
    case $1 in
        *-darwin) echo nix-unroot nix-root-scan nix-daemon-gate nix-build-broker ;;
        *) echo nix-unroot nix-root-scan nix-daemon-gate ;;
    esac
}

# What the programs need, in words.
needed_by() {
    case $1 in
        *-darwin) echo "macOS 11 or newer" ;;
        *) echo "Linux with glibc 2.28 or newer" ;;
    esac
}

# fetch URL FILE
fetch() {
    case $1 in
        https://*) only="=https" ;;
        *) only="=http,https" ;;
    esac
    if have curl; then
        curl --proto "$only" --location --fail --silent --show-error --retry 3 --connect-timeout 30 --speed-limit 1 --speed-time 60 --output "$2" "$1"
    else
        # GNU's would try twenty times, and busybox's knows no such option.
        case $(wget --help 2>&1) in
            *--tries=*) wget -q --tries=3 -O "$2" "$1" ;;
            *) wget -q -O "$2" "$1" ;;
        esac
    fi
}

# The SHA-256 digest of a file, in hexadecimal.
digest_of() {
    if have sha256sum; then
        sha256sum <"$1"
    elif have shasum; then
        shasum -a 256 <"$1"
    else
        openssl dgst -sha256 -r <"$1"
    fi | cut -d ' ' -f 1
}

# Removes the directory of the download, whatever happened.
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    [ -z "${dir-}" ] || rm -rf "$dir"
}

# A directory of our own from which programs can be run: a cautious administrator mounts /tmp noexec.
make_directory() {
    for parent in "${TMPDIR:-/tmp}" /var/tmp "${HOME:-/}"; do
        dir=$(mktemp -d "$parent/nix-unroot.XXXXXXXX" 2>/dev/null) || continue
        printf '#!/bin/sh\n' >"$dir/probe"
        chmod 0700 "$dir/probe"
        if "$dir/probe" 2>/dev/null; then
            rm "$dir/probe"
            return
        fi
        rm -rf "$dir"
    done
    dir=
    die "found no directory to run programs from (tried ${TMPDIR:-/tmp}, /var/tmp and the home directory): set TMPDIR to one"
}

# Whether the command changes the machine, and so needs root.
needs_root() {
    for word in "$@"; do
        case $word in
            -h | --help | -V | --version | --dry-run) return 1 ;;
        esac
    done
    for word in "$@"; do
        case $word in
            install | migrate | uninstall | rollback | resume | verify | audit) return 0 ;;
        esac
    done
    return 1
}

# The names of the variables that nix-unroot reads. sudo hands on nothing by itself.
variables() {
    env | sed -nE 's/^(NIX_UNROOT_[A-Z0-9_]*|[a-z]*_proxy|[A-Z]*_PROXY|NO_COLOR|TERM|[A-Z_]*SSL_CERT_FILE|CURL_CA_BUNDLE)=.*/\1/p'
}

# run WORDS...: nix-unroot, as root where it needs that, and with the terminal to ask at, though our own input is a pipe.
run() {
    if needs_root "$@" && [ "$(id -u)" != 0 ]; then
        have sudo || die "\`nix-unroot $*\` needs root, and there is no sudo here: run this script as root"
        say "\`nix-unroot $*\` changes the machine, so it runs with sudo"
        set -- "$dir/nix-unroot" "$@"
        for name in $(variables); do
            eval "set -- \"\$name=\$$name\" \"\$@\""
        done
        set -- sudo env "$@"
    else
        set -- "$dir/nix-unroot" "$@"
    fi
    status=0
    if [ ! -t 0 ] && (: </dev/tty) 2>/dev/null; then
        "$@" </dev/tty || status=$?
    else
        "$@" || status=$?
    fi
    return "$status"
}

main() {
    [ -n "$VERSION" ] || die "this is the script's source: releases carry it with the digests of their archives filled in (scripts/release)"
    if [ $# -eq 0 ]; then
        say "give it a command, for example: curl -fsSL .../install.sh | sh -s -- install"
        say "migrate --dry-run shows what would change on a machine that has Nix already; --help lists all commands"
        exit 2
    fi
    for tool in uname tr cut sed mktemp tar gzip; do
        have "$tool" || die "needs \`$tool\`: install it"
    done
    have curl || have wget || die "needs curl or wget for the download: install one of them"
    have sha256sum || have shasum || have openssl ||
        die "needs sha256sum, shasum or openssl to check the download: install one of them"

    system=$(system)
    archive=nix-unroot-$VERSION-$system.tar.gz
    expected=$(printf '%s\n' "$DIGESTS" | sed -n "s/ $archive\$//p")
    [ -n "$expected" ] || die "there is no release for this system ($system). It was made for:
$(printf '%s\n' "$DIGESTS" | sed -n 's/.*nix-unroot-[^ ]*-\([^-]*-[^-]*\)\.tar\.gz$/    \1/p')"

    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    make_directory

    url=${NIX_UNROOT_RELEASE_URL:-https://github.com/nix-unroot/nix-unroot/releases/download/v$VERSION}/$archive
    say "fetching nix-unroot $VERSION for $system"
    fetch "$url" "$dir/archive" || die "cannot download $url"
    found=$(digest_of "$dir/archive")
    [ "$found" = "$expected" ] || die "$url is not what was released: its SHA-256 is
    $found, and should be
    $expected. Nothing was unpacked or run. Try again; if it stays so, tell the maintainers"

    # shellcheck disable=SC2046 # a list of names
    (cd "$dir" && gzip -dc archive | tar -xf - $(programs_for "$system")) || die "cannot unpack $url into $dir"
    "$dir/nix-unroot" --version >/dev/null 2>&1 ||
        die "the programs do not run here: they need $(needed_by "$system") (this system: $(uname -sr))"

    status=0
    run "$@" || status=$?
    exit "$status"
}

main "$@"
