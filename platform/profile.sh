# Written by nix-unroot. Makes shells see Nix; read by sh, bash and zsh.
#
# Not in root's shells: what lies below /nix belongs to the user {{nix_user}}, and root runs nothing that somebody else can
# change. As root, use the user's own tools (`sudo -u USER nix ...`), or name a program's whole path knowingly.
if [ -n "${HOME-}" ] && [ -z "${__NIX_UNROOT_PROFILE-}" ] && [ "$(id -u)" != 0 ]; then
    export __NIX_UNROOT_PROFILE=1
    __nix_link="$HOME/.nix-profile"
    if [ -e "${XDG_STATE_HOME-$HOME/.local/state}/nix/profile" ]; then
        __nix_link="${XDG_STATE_HOME-$HOME/.local/state}/nix/profile"
    fi
    export NIX_PROFILES="/nix/var/nix/profiles/default $__nix_link"
    if [ -z "${NIX_SSL_CERT_FILE-}" ]; then
        for __nix_file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem \
            /nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt; do
            if [ -e "$__nix_file" ]; then
                export NIX_SSL_CERT_FILE="$__nix_file"
                break
            fi
        done
        unset __nix_file
    fi
    export PATH="$__nix_link/bin:/nix/var/nix/profiles/default/bin:$PATH"
    export XDG_DATA_DIRS="${XDG_DATA_DIRS-/usr/local/share:/usr/share}:$__nix_link/share:/nix/var/nix/profiles/default/share"
    unset __nix_link
fi
