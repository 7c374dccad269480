//! The volume at `/nix`, from `diskutil info -plist /nix` (diskutil(8)), and its password, from the system's keychain.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::machine::As;
use super::super::reader::Reader;

/// Where passwords lie that the system may use while nobody is logged in.
pub const KEYCHAIN: &str = "/Library/Keychains/System.keychain";
/// What every installer calls Nix's volume.
pub const NAME: &str = "Nix Store";
/// How security(1) ends when there is no such item: `errSecItemNotFound` (-25300), of which a shell sees the low 8 bits.
const NOT_FOUND: i32 = 44;

/// The volume that is mounted at `/nix`.
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

/// The keys that are read, of many.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    volume_name: String,
    #[serde(rename = "VolumeUUID", default)]
    volume_uuid: String,
    #[serde(default)]
    device_identifier: String,
    #[serde(default)]
    filesystem_type: String,
    #[serde(default)]
    global_permissions_enabled: bool,
    file_vault: Option<bool>,
    #[serde(default)]
    mount_point: String,
    #[serde(default)]
    writable_volume: bool,
    #[serde(rename = "APFSContainerReference")]
    container: Option<String>,
}

/// The volume that is mounted at `/nix`, or else one for Nix that is not mounted; and the system's disk.
pub(crate) fn gather(reader: &Reader<'_>) -> (Option<Volume>, Option<Volume>, Option<SystemDisk>) {
    let system: Option<Info> = reader.property_list_of("diskutil", &["info", "-plist", "/"]);
    let system_encrypted = system.as_ref().and_then(|system| system.file_vault);
    let disk = system.map(|system| SystemDisk { container: system.container, encrypted: system.file_vault });
    let mounted: Option<Info> = match reader.machine.exists("/nix") {
        true => reader.property_list_of("diskutil", &["info", "-plist", "/nix"]),
        false => None,
    };
    // Where `/nix` is no volume of its own, diskutil tells of the one that it lies on.
    let mounted = mounted.filter(|info| info.mount_point == "/nix");
    let unmounted = if mounted.is_none() { named(reader) } else { None };
    let volume = |info: Info| Volume {
        keychain_item: keychain_item(reader, &info.volume_name),
        name: info.volume_name,
        uuid: info.volume_uuid,
        device: info.device_identifier,
        file_system: info.filesystem_type,
        owners_enabled: info.global_permissions_enabled,
        encrypted: info.file_vault,
        system_encrypted,
        writable: info.writable_volume,
    };
    (mounted.map(volume), unmounted.map(volume), disk)
}

/// The volume of the name that all installers give it. diskutil ends with 1 where there is none, and says so in a property list.
fn named(reader: &Reader<'_>) -> Option<Info> {
    let words = ["info", "-plist", NAME];
    match reader.machine.run_for(As::Self_, "diskutil", &words, &[0, 1]) {
        Ok(said) => plist::from_bytes::<Info>(said.as_bytes()).ok().filter(|info| info.volume_name == NAME),
        Err(why) => {
            reader.note(format!("diskutil info -plist {NAME:?}"), why);
            None
        }
    }
}

/// Looks for an item whose account is the volume's name. Without `-g` and `-w` no password is shown, and nobody is asked.
fn keychain_item(reader: &Reader<'_>, volume: &str) -> Option<KeychainItem> {
    let words = ["find-generic-password", "-a", volume, KEYCHAIN];
    match reader.machine.run_for(As::Self_, "security", &words, &[0, NOT_FOUND]) {
        Ok(said) => parse_item(&said),
        Err(why) => {
            reader.note(KEYCHAIN, why);
            None
        }
    }
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
