# Written by nix-unroot. Makes fish see Nix; not as root: see /etc/profile.d/nix.sh.
if set -q HOME; and not set -q __NIX_UNROOT_PROFILE; and test (id -u) != 0
    set -gx __NIX_UNROOT_PROFILE 1
    set -l state $HOME/.local/state
    if set -q XDG_STATE_HOME
        set state $XDG_STATE_HOME
    end
    set -l link $HOME/.nix-profile
    if test -e $state/nix/profile
        set link $state/nix/profile
    end
    set -gx NIX_PROFILES "/nix/var/nix/profiles/default $link"
    if not set -q NIX_SSL_CERT_FILE
        for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt
            if test -e $file
                set -gx NIX_SSL_CERT_FILE $file
                break
            end
        end
    end
    set -gx PATH $link/bin /nix/var/nix/profiles/default/bin $PATH
    if not set -q XDG_DATA_DIRS
        set -gx XDG_DATA_DIRS /usr/local/share:/usr/share
    end
    set -gx XDG_DATA_DIRS $XDG_DATA_DIRS:$link/share:/nix/var/nix/profiles/default/share
end
