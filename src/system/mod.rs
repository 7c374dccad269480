//! What every part needs of the operating system: commands with a clean environment, children that are watched, text that is fit for a
//! terminal, files that are
//! replaced whole or not at all, access control lists, the locks of those who change it, too, and
//! waiting.

pub mod access_list;
pub mod checkpoint;
pub mod command;
pub mod files;
pub mod kernel;
pub mod mounts;
pub mod own_program;
pub mod package_lock;
pub mod pause;
#[cfg(all(test, target_os = "linux"))]
pub mod small_disk;
pub mod text;
pub mod trees;
pub mod watched;
