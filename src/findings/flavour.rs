//! Kinds of installation that are not migrated, and why (DESIGN section 8).

use super::Severity::{Blocker, Warning};
use super::{Check, Options, Seen};
use crate::facts::{Facts, Flavour, SingleUser};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "flavour-determinate-nix",
        severity: Blocker,
        title: "Determinate Nix runs a daemon of its own",
        see: determinate_nix,
    },
    Check { key: "flavour-lix", severity: Blocker, title: "Lix has no roots daemon", see: lix },
    Check {
        key: "flavour-nixos",
        severity: Blocker,
        title: "NixOS's configuration owns these files",
        see: nixos,
    },
    Check {
        key: "flavour-nix-darwin",
        severity: Blocker,
        title: "nix-darwin's configuration owns these files",
        see: nix_darwin,
    },
    Check {
        key: "flavour-system-manager",
        severity: Blocker,
        title: "system-manager's configuration owns these files",
        see: system_manager,
    },
    Check {
        key: "flavour-single-user",
        severity: Warning,
        title: "a single-user installation becomes one for everybody, with an unprivileged daemon",
        see: single_user,
    },
    Check {
        key: "single-user-nix-missing",
        severity: Blocker,
        title: "the single-user installation has no Nix that could become the daemon",
        see: single_user_without_nix,
    },
    Check {
        key: "single-user-owner",
        severity: Blocker,
        title: "the store belongs already to the account that is to own it",
        see: single_user_is_nix,
    },
    Check {
        key: "flavour-foreign-unprivileged",
        severity: Blocker,
        title: "the daemon already runs without root, set up by other means",
        see: foreign_unprivileged,
    },
    Check {
        key: "flavour-unknown",
        severity: Blocker,
        title: "nobody can tell who installed this Nix",
        see: unknown,
    },
    Check { key: "nix-present", severity: Blocker, title: "there is a Nix here already", see: present },
    Check { key: "nix-missing", severity: Blocker, title: "there is no Nix to migrate", see: missing },
];

fn is(facts: &Facts, flavour: &Flavour) -> Option<()> {
    (facts.flavour == *flavour).then_some(())
}

fn determinate_nix(facts: &Facts, _: &Options) -> Option<Seen> {
    is(facts, &Flavour::DeterminateNix)?;
    Some(Seen::new("determinate-nixd is installed; it generates nix.conf and starts the daemon itself").remedy(
        "install upstream Nix in its place (DeterminateSystems/nix-installer: `install --prefer-upstream-nix`), then migrate",
    ))
}

fn lix(facts: &Facts, _: &Options) -> Option<Seen> {
    is(facts, &Flavour::Lix)?;
    Some(
        Seen::new(format!("{} is Lix", first_binary(facts))).remedy(
            "install upstream Nix 2.34 or newer in its place, then migrate; Lix's store works with it",
        ),
    )
}

fn nixos(facts: &Facts, _: &Options) -> Option<Seen> {
    is(facts, &Flavour::NixOs)?;
    Some(Seen::new("this is NixOS; a change made here would be gone with the next rebuild").remedy(
        "set nix.daemonUser = \"nix\"; and nix.daemonGroup = \"nix\"; in the system's configuration, with nix.package 2.34 or newer, \
         and rebuild",
    ).command(&["nixos-rebuild", "switch"]))
}

fn nix_darwin(facts: &Facts, _: &Options) -> Option<Seen> {
    is(facts, &Flavour::NixDarwin)?;
    Some(
        Seen::new("nix-darwin writes nix.conf and the daemon's property list")
            .remedy("let go of Nix with `nix.enable = false;` in nix-darwin's configuration first"),
    )
}

fn system_manager(facts: &Facts, _: &Options) -> Option<Seen> {
    is(facts, &Flavour::SystemManager)?;
    Some(Seen::new("system-manager has a profile here; it writes units and files in /etc").remedy(
        "take Nix's files out of its configuration (`nix.enable = false;`) and remove its profile first",
    ))
}

fn single_user(facts: &Facts, _: &Options) -> Option<Seen> {
    let person = facts.single_user.as_ref()?;
    let name = name_of(person);
    Some(
        Seen::new(format!("/nix/store belongs to {name} (uid {}), and no daemon is installed", person.uid)).remedy(format!(
            "{name} keeps profiles and roots and becomes a user like others (trusted-users in nix.conf makes more of it); but \
             everybody will use what {name} could write to until now: where {name} is not trusted that far, install a Nix anew instead"
        )),
    )
}

fn single_user_without_nix(facts: &Facts, options: &Options) -> Option<Seen> {
    let person = facts.single_user.as_ref()?;
    (facts.nix.is_empty() && !options.brings_nix).then(|| {
        Seen::new(format!("neither the profile of {} nor the usual places hold one", name_of(person)))
            .remedy("bring one along with migrate --nix-archive FILE")
    })
}

fn single_user_is_nix(facts: &Facts, options: &Options) -> Option<Seen> {
    let person = facts.single_user.as_ref()?;
    (name_of(person) == options.nix_user).then(|| {
        Seen::new(format!("/nix/store belongs to {}, and no daemon is installed", options.nix_user))
            .remedy("name another user with --nix-user, or give /nix to root first")
    })
}

fn name_of(person: &SingleUser) -> String {
    person.name.clone().unwrap_or_else(|| format!("uid {}", person.uid))
}

fn foreign_unprivileged(facts: &Facts, _: &Options) -> Option<Seen> {
    is(facts, &Flavour::UnprivilegedForeign)?;
    let unit =
        facts.units.iter().find(|unit| unit.name.as_str().starts_with("nix-daemon") && unit.user.is_some());
    let seen = unit.map_or_else(
        || "nix-daemon is started through nix-nswrapper".to_owned(),
        |unit| format!("{} has User={}", unit.name, unit.user.as_deref().unwrap_or_default()),
    );
    Some(Seen::new(seen).remedy(
        "give it back to root first (undo that set-up and chown /nix to root), then migrate; the plain set-up loses GC roots and trust",
    ))
}

fn unknown(facts: &Facts, _: &Options) -> Option<Seen> {
    is(facts, &Flavour::Unknown)?;
    let seen = match &facts.store {
        Some(store) => format!("/nix/store (owner uid {}) and {}", store.uid, first_binary(facts)),
        None => first_binary(facts),
    };
    Some(
        Seen::new(seen)
            .remedy("install Nix with its official installer or the distribution's packages over this store, then migrate"),
    )
}

fn present(facts: &Facts, options: &Options) -> Option<Seen> {
    let migrated = facts.flavour == Flavour::Unprivileged;
    (options.installing && facts.flavour != Flavour::None && !migrated).then(|| {
        Seen::new(first_binary(facts))
            .remedy("nix-unroot migrate takes over what is here; nothing is installed beside it")
            .command(&["nix-unroot", "migrate", "--dry-run"])
    })
}

fn missing(facts: &Facts, options: &Options) -> Option<Seen> {
    is(facts, &Flavour::None).filter(|()| !options.installing)?;
    Some(
        Seen::new("neither /nix/store nor a nix-daemon is here")
            .remedy("install one, unprivileged from the beginning")
            .command(&["nix-unroot", "install"]),
    )
}

fn first_binary(facts: &Facts) -> String {
    facts.nix.first().map_or_else(|| "no Nix program".to_owned(), |nix| nix.path.display().to_string())
}
