//! What running processes, and the kernel itself, hold of the store.

#[cfg(target_os = "linux")]
mod elsewhere;
#[cfg(target_os = "linux")]
mod inside;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(target_os = "linux", test, fuzzing))]
mod names;
#[cfg(target_os = "linux")]
mod one;
#[cfg(any(target_os = "macos", test, fuzzing))]
mod records;
#[cfg(target_os = "linux")]
mod sight;
#[cfg(target_os = "linux")]
mod text;

#[cfg(target_os = "linux")]
pub use linux::Processes;
#[cfg(target_os = "linux")]
use linux::numbers;
#[cfg(target_os = "macos")]
pub use macos::Processes;

/// How often processes that were started during the scan are looked for. A machine that builds always has new ones; those of
/// a later round were started by processes that the earlier rounds saw.
const ROUNDS: usize = 4;

/// For `crate::fuzz`: what is found in `text` when it is read in pieces of `size` bytes.
#[cfg(all(any(test, fuzzing), target_os = "linux"))]
pub(crate) fn found_in_pieces(text: &[u8], size: usize) -> Vec<Vec<u8>> {
    text::found_in_pieces(text, size)
}

/// For `crate::fuzz`: whether this text of `/proc/self/status` names all needed capabilities.
#[cfg(all(any(test, fuzzing), target_os = "linux"))]
pub(crate) fn holds_all(status: &[u8]) -> bool {
    sight::missing(status).is_none()
}

/// For `crate::fuzz`: reads what tables of mounts and of mapped files could say.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_names(text: &[u8]) {
    names::check(text);
}

/// For `crate::fuzz`: reads what libproc could say.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_records(text: &[u8]) {
    records::check(text);
}
