//! What every part needs of the operating system: commands with a clean environment, and files that are
//! replaced whole or not at all.

pub mod checkpoint;
pub mod command;
pub mod files;
