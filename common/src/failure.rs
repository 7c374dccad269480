//! A failure in words.

/// A failure in words that an administrator can act on. Nobody decides on its kind: every one of them closes the
/// connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with this message: lower case, names the thing, the reason and the remedy.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// What every fallible function of a helper returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// Turns the error of a system call into a [`Failure`] that begins with what was being done.
pub fn while_doing<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure(format!("cannot {what}: {error}"))
}
