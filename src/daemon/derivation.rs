//! A derivation with nothing left to resolve: what to run, with what, to make one output.

use super::wire::Wire;
use crate::types::StorePath;

/// A build of one input-addressed output named `out`, from store paths that are there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// The name under which the daemon knows the build, ending in `.drv`. Nothing need be there.
    pub path: StorePath,
    /// Where the output goes.
    pub output: StorePath,
    /// Store paths that the sandbox shows.
    pub inputs: Vec<StorePath>,
    /// Nix's name of the machine, such as `x86_64-linux`.
    pub system: String,
    /// The program to run.
    pub builder: String,
    /// Its environment, besides what Nix adds.
    pub environment: Vec<(String, String)>,
}

impl Derivation {
    /// `writeDerivation` of `src/libstore/derivations.cc`, for one output and no arguments.
    pub(super) fn put(&self, wire: &mut Wire) {
        wire.put(1)
            .put_bytes(b"out")
            .put_bytes(self.output.to_string().as_bytes())
            .put_bytes(b"")
            .put_bytes(b"");
        wire.put(self.inputs.len() as u64);
        for input in &self.inputs {
            wire.put_bytes(input.to_string().as_bytes());
        }
        wire.put_bytes(self.system.as_bytes()).put_bytes(self.builder.as_bytes()).put(0);
        wire.put(self.environment.len() as u64);
        for (name, value) in &self.environment {
            wire.put_bytes(name.as_bytes()).put_bytes(value.as_bytes());
        }
    }
}
