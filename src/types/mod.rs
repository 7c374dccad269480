//! Values that cannot be wrong: parsed once at the edge, trusted afterwards.

mod nix_version;
mod sha256;
mod store_path;
mod subid;
mod unit_name;

pub use nix_version::NixVersion;
pub use sha256::Sha256Digest;
pub use store_path::{STORE_DIR, StorePath};
pub use subid::{SubidEntry, SubidRange, parse_subid_file};
pub use unit_name::UnitName;
