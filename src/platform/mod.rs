//! What differs between operating systems: paths, the service manager, and the texts of units and their kin.
//!
//! The texts are files below `platform/`, embedded at build time ([`texts`]); `{{name}}` in them is filled in by
//! [`template::fill`].

pub mod block;
pub mod directory;
pub mod keychain;
pub mod launchd;
pub mod paths;
pub mod systemd;
pub mod template;
pub mod texts;
pub mod volume;
