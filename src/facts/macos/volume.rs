//! The volume at `/nix`, from `diskutil info -plist /nix` (diskutil(8)), and its password, from the system's keychain.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::machine::As;
use super::super::reader::Reader;
use crate::platform::keychain::NO_ITEM;
pub use crate::platform::keychain::SYSTEM as KEYCHAIN;
use crate::platform::volume::Volume as Info;

/// What every installer calls Nix's volume.
pub const NAME: &str = "Nix Store";

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Volume {
    /// Its name: `Nix Store`.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its device: `disk3s7`.
    pub device: String,
    /// `apfs`.
    pub file_system: String,
    /// Whether owners count on it; without them every file belongs to whoever looks.
    pub owners_enabled: bool,
    /// Whether it is encrypted with a password of its own; `None` when diskutil does not say.
    pub encrypted: Option<bool>,
    /// Whether the system's disk is encrypted; `None` when diskutil does not say.
    pub system_encrypted: Option<bool>,
    /// The item of the system's keychain that holds the volume's password.
    pub keychain_item: Option<KeychainItem>,
    /// Whether it can be written to.
    pub writable: bool,
}

/// The disk that the system lies on.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SystemDisk {
    /// The container of APFS, to which volumes can be added: `disk3`.
    pub container: Option<String>,
    /// Whether it is encrypted (FileVault); `None` when diskutil does not say.
    pub encrypted: Option<bool>,
}

/// An item of a keychain, without its password.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct KeychainItem {
    /// `acct`: the volume's name.
    pub account: String,
    /// `svce`: the volume's UUID (the official script), or its name (the Rust installers).
    pub service: String,
    /// What a person sees.
    pub label: Option<String>,
}

/// The volumes of a Mac that have to do with Nix, and the system's disk.
#[derive(Default)]
pub(super) struct Found {
    /// The one that is mounted at `/nix`.
    pub mounted: Option<Volume>,
    /// Else the one for Nix beside the system's that is not mounted.
    pub unmounted: Option<Volume>,
    /// Else one that has the name, and lies or is mounted elsewhere.
    pub elsewhere: Option<Volume>,
    /// The system's disk.
    pub disk: Option<SystemDisk>,
}

pub(super) fn gather(reader: &Reader<'_>) -> Found {
    let system = info(reader, "/");
    let system_encrypted = system.as_ref().and_then(|system| system.encrypted);
    let disk = system.map(|system| SystemDisk { container: system.container, encrypted: system.encrypted });
    let volume = |info: Info| Volume {
        keychain_item: keychain_item(reader, &info),
        name: info.name,
        uuid: info.uuid,
        device: info.device,
        file_system: info.file_system,
        owners_enabled: info.owners_enabled,
        encrypted: info.encrypted,
        system_encrypted,
        writable: info.writable,
    };
    let mounted = reader.machine.exists("/nix").then(|| info(reader, "/nix")).flatten();
    // Where `/nix` is no volume of its own, diskutil tells of the one that it lies on.
    if let Some(mounted) = mounted.filter(|info| info.mount_point == "/nix") {
        return Found { mounted: Some(volume(mounted)), disk, ..Found::default() };
    }
    // The name alone says little: a clone of another Mac's disk has one, too.
    let container = disk.as_ref().and_then(|disk| disk.container.clone());
    let named = info(reader, NAME).filter(|info| info.name == NAME);
    match named {
        Some(named)
            if named.mount_point.is_empty() && container.is_some() && named.container == container =>
        {
            Found { unmounted: Some(volume(named)), disk, ..Found::default() }
        }
        named => Found { elsewhere: named.map(volume), disk, ..Found::default() },
    }
}

/// What diskutil says of a volume. It ends with 1 where there is none, and says so in a property list.
fn info(reader: &Reader<'_>, volume: &str) -> Option<Info> {
    let said = reader.machine.run_for(As::Self_, "diskutil", &["info", "-plist", volume], &[0, 1]);
    let read = said.and_then(|said| Info::read(said.as_bytes()).map_err(|error| format!("{error:#}")));
    read.unwrap_or_else(|why| {
        reader.note(format!("diskutil info -plist {volume}"), why);
        None
    })
}

/// Looks for the item with the volume's password. Every installation's has the same account, so the service has to name this volume. Without
/// `-g` and `-w` no password is shown, and nobody is asked.
fn keychain_item(reader: &Reader<'_>, volume: &Info) -> Option<KeychainItem> {
    [&volume.uuid, &volume.name].into_iter().filter(|service| !service.is_empty()).find_map(|service| {
        let words = ["find-generic-password", "-a", &volume.name, "-s", service, KEYCHAIN];
        let said = reader.machine.run_for(As::Self_, "security", &words, &[0, NO_ITEM]);
        let said = said.inspect_err(|why| reader.note(KEYCHAIN, why)).ok()?;
        parse_item(&said).filter(|item| item.service == *service)
    })
}

/// `security find-generic-password` writes a line an attribute: four letters in quotes or a number, its type, and the value in
/// quotes. The label is number 7.
fn parse_item(said: &str) -> Option<KeychainItem> {
    let value = |name: &str| {
        let line = said.lines().map(str::trim).find(|line| line.starts_with(name))?;
        let value = line.split_once("<blob>=")?.1.trim();
        Some(value.strip_prefix('"')?.strip_suffix('"')?.to_owned())
    };
    Some(KeychainItem {
        account: value("\"acct\"")?,
        service: value("\"svce\"")?,
        label: value("0x00000007"),
    })
}
