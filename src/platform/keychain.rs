//! Passwords in a Mac's keychains, with security(1). None is ever an argument of a command, which everybody could read with ps(1).

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::system::command;

/// Where passwords lie that the system may use while nobody is logged in.
pub const SYSTEM: &str = "/Library/Keychains/System.keychain";
/// How security(1) ends when there is no such item: errSecItemNotFound (-25300), of which a shell sees the low 8 bits.
pub const NO_ITEM: i32 = 44;
/// Bytes of randomness in a password.
const RANDOM: usize = 32;

/// An item of a keychain.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The keychain.
    pub keychain: String,
    /// The item's account.
    pub account: String,
    /// Its service.
    pub service: String,
}

/// A password. It is in no message and in no journal.
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A new one, in hexadecimal.
    ///
    /// # Errors
    /// When the kernel gives no random numbers.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; RANDOM];
        let mut source = File::open("/dev/urandom").context("cannot open /dev/urandom")?;
        source.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// As a command reads it.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Item {
    fn words<'a>(&'a self, command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec![command, "-a", &self.account, "-s", &self.service];
        words.extend(more);
        words.push(&self.keychain);
        words
    }

    /// Whether there is one.
    ///
    /// # Errors
    /// When security fails.
    pub fn is_there(&self) -> Result<bool> {
        let output = command::output("security", &self.words("find-generic-password", &[]))?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(NO_ITEM) => Ok(false),
            _ => bail!(
                "cannot look for the volume's password in {}: security ended with {}",
                self.keychain,
                output.status
            ),
        }
    }

    /// The password.
    ///
    /// # Errors
    /// When there is none, or the keychain does not give it away.
    pub fn password(&self) -> Result<Secret> {
        let said = command::run("security", &self.words("find-generic-password", &["-w"]))?;
        let password = said.trim_end_matches('\n');
        if password.is_empty() {
            bail!("the password of {} in {} is empty", self.account, self.keychain);
        }
        Ok(Secret(password.to_owned()))
    }

    /// Makes the item. The command goes to security's standard input (`-i`), whose status then tells nothing: what counts is
    /// whether the item is there.
    ///
    /// # Errors
    /// When it is not there afterwards.
    pub fn add(&self, password: &Secret) -> Result<()> {
        let Self { keychain, account, service } = self;
        if [keychain, account, service].iter().any(|word| word.contains(['"', '\\', '\n'])) {
            bail!("{account:?}, {service:?} or {keychain:?} cannot be an item's name");
        }
        // What may read it without asking: the system's own that unlock volumes, and the tool that our job calls.
        let input = format!(
            "add-generic-password -a \"{account}\" -s \"{service}\" -l \"{account} encryption password\" \
             -D \"Encrypted volume password\" -w \"{}\" -T /System/Library/CoreServices/APFSUserAgent \
             -T /System/Library/CoreServices/CSUserAgent -T /usr/bin/security \"{keychain}\"\n",
            password.0
        );
        let output = command::output_with_input("security", &["-i"], input.as_bytes())?;
        if !self.is_there()? {
            // What security says could repeat what it was told.
            bail!("cannot put the volume's password into {keychain}: security ended with {}", output.status);
        }
        Ok(())
    }

    /// Removes it. One that is not there is fine.
    ///
    /// # Errors
    /// When security fails.
    pub fn remove(&self) -> Result<()> {
        if self.is_there()? {
            command::run("security", &self.words("delete-generic-password", &[]))?;
        }
        Ok(())
    }
}
