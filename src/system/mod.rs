//! What every part needs of the operating system: commands with a clean environment, files that are
//! replaced whole or not at all, and access control lists.

pub mod access_list;
pub mod command;
pub mod files;
