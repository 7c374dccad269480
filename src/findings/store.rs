//! The store, its database and the mounts they lie on.

use super::Severity::{Blocker, Info, Warning};
use super::{Check, Options, Seen};
use crate::facts::{Facts, Mount};
use crate::types::STORE_DIR;

/// The schema of all Nix since 2.0 (`src/libstore/local-store.hh`, `nixSchemaVersion`).
const SCHEMA: u32 = 10;
/// Room for the journal and what it keeps, besides two copies of the database.
const SPARE_BYTES: u64 = 64 << 20;

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "store-read-only",
        severity: Blocker,
        title: "the store is mounted read-only",
        see: |facts, _| {
            holder(facts, |mount| mount.read_only).map(|seen| {
                seen.remedy("mount it writable").command(&["mount", "-o", "remount,rw", STORE_DIR])
            })
        },
    },
    Check {
        key: "store-on-network",
        severity: Blocker,
        title: "the store lies on a network file system",
        see: |facts, _| {
            holder(facts, |mount| mount.network).map(|seen| {
                seen.remedy("migrate on the machine that serves it, or move the store to a local file system")
            })
        },
    },
    Check {
        key: "store-idmapped",
        severity: Blocker,
        title: "the store is mounted with mapped ids",
        see: |facts, _| {
            holder(facts, |mount| mount.idmapped).map(|seen| {
                seen.remedy("mount it without an id map: owners written here would mean others there")
            })
        },
    },
    Check {
        key: "store-noexec",
        severity: Warning,
        title: "the store is mounted noexec",
        see: |facts, _| {
            holder(facts, |mount| mount.noexec).map(|seen| {
                seen.remedy("nothing built by Nix can run here: mount it with exec").command(&[
                    "mount",
                    "-o",
                    "remount,exec",
                    STORE_DIR,
                ])
            })
        },
    },
    Check {
        key: "mount-below-nix",
        severity: Info,
        title: "other file systems are mounted below /nix; their files keep their owners",
        see: mount_below,
    },
    Check { key: "database-damaged", severity: Blocker, title: "Nix's database is damaged", see: damaged },
    Check {
        key: "database-schema-unknown",
        severity: Blocker,
        title: "Nix's database has a schema that this tool does not know",
        see: schema,
    },
    Check {
        key: "system-read-only",
        severity: Blocker,
        title: "a place for programs, configuration or the journal is on a read-only file system",
        see: read_only,
    },
    Check {
        key: "disk-full",
        severity: Blocker,
        title: "there is no room for a copy of Nix's database and the journal",
        see: disk_full,
    },
];

/// What there is to say of the mount that the store lies on, when it is `bad`.
fn holder(facts: &Facts, bad: fn(&Mount) -> bool) -> Option<Seen> {
    let mount = facts.mounts.iter().find(|mount| mount.holds_store && bad(mount))?;
    let (path, fs_type, source) = (mount.path.display(), &mount.fs_type, &mount.source);
    Some(Seen::new(format!("{STORE_DIR} lies on {path} ({fs_type} from {source})")))
}

fn mount_below(facts: &Facts, _: &Options) -> Option<Seen> {
    let state = ["/nix/store", "/nix/var"];
    let inside = |mount: &&Mount| {
        state.iter().any(|root| mount.path.starts_with(root) && mount.path.as_os_str() != *root)
            && !mount.holds_store
    };
    let below: Vec<_> =
        facts.mounts.iter().filter(inside).map(|mount| mount.path.display().to_string()).collect();
    (!below.is_empty()).then(|| Seen::new(below.join(", ")))
}

fn damaged(facts: &Facts, _: &Options) -> Option<Seen> {
    let database = facts.database.as_ref()?;
    let complaint = database.integrity.as_deref().filter(|said| *said != "ok")?;
    Some(
        Seen::new(format!("{}: {complaint}", database.path.display()))
            .remedy("restore it from a backup, or dump and reload it with nix-store --dump-db and --load-db, then look again")
            .command(&["nix-store", "--verify"]),
    )
}

fn schema(facts: &Facts, _: &Options) -> Option<Seen> {
    let found = facts.database.as_ref()?.schema.filter(|found| *found != SCHEMA)?;
    let remedy = if found < SCHEMA {
        "start the installed Nix once as root: it upgrades the schema"
    } else {
        "use a nix-unroot that knows this schema"
    };
    Some(Seen::new(format!("/nix/var/nix/db/schema says {found}, {SCHEMA} is known")).remedy(remedy))
}

fn read_only(facts: &Facts, _: &Options) -> Option<Seen> {
    let places: Vec<_> = facts.read_only.iter().map(|path| path.display().to_string()).collect();
    (!places.is_empty()).then(|| {
        Seen::new(format!("{} cannot be written to", places.join(", ")))
            .remedy("mount it writable; on a system whose image is fixed, do this where the image is made")
    })
}

fn disk_full(facts: &Facts, _: &Options) -> Option<Seen> {
    let needed = facts.database.as_ref().map_or(0, |database| database.bytes).saturating_mul(2) + SPARE_BYTES;
    let free = facts.backup_free_bytes.filter(|free| *free < needed)?;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Some(
        Seen::new(format!("{} MiB are free where /var/lib lies, {} MiB are needed", free >> 20, mib(needed)))
            .remedy("free some space there"),
    )
}
