//! The live store paths found so far.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use crate::doubt::Doubt;
use crate::store_path::StorePath;

/// So many different paths are more than any real machine has, and few enough (~60 MiB) for the unit's memory limit. Anybody
/// can put more into an environment; that blocks the garbage collection, it does not fool it.
const LIMIT: usize = 400_000;

/// Where a path was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// A file of `/proc`, a link, or two links with an arrow between.
    pub path: PathBuf,
    /// Uid of the owner of the second link.
    pub owner: Option<u32>,
    /// Since when it is only remembered, in seconds since 1970.
    pub lost: Option<u64>,
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self { path, ..Self::default() }
    }
}

/// A set of store paths and, when asked for, the places where each was seen.
#[derive(Debug)]
pub struct Roots {
    paths: HashSet<StorePath>,
    places: Option<BTreeSet<(StorePath, Place)>>,
    limit: usize,
}

impl Roots {
    /// For the daemon: paths only.
    pub fn new() -> Self {
        Self { paths: HashSet::new(), places: None, limit: LIMIT }
    }

    /// For people: with the places.
    pub fn with_places() -> Self {
        Self { places: Some(BTreeSet::new()), ..Self::new() }
    }

    /// The same, with another limit on the number of paths (and of places).
    pub fn limited(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Adds the path with this base name, seen at `place`; nothing happens when it is none.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add(&mut self, base_name: &[u8], place: impl Fn() -> PathBuf) -> Result<(), Doubt> {
        self.add_seen(base_name, || place().into())
    }

    /// The same with all that is known of the place.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add_seen(&mut self, base_name: &[u8], place: impl Fn() -> Place) -> Result<(), Doubt> {
        if !self.paths.contains(base_name) {
            let Some(path) = StorePath::from_base_name(base_name) else { return Ok(()) };
            self.paths.insert(path);
        }
        if let Some(places) = &mut self.places
            && let Some(path) = StorePath::from_base_name(base_name)
        {
            places.insert((path, place()));
        }
        let held = self.paths.len().max(self.places.as_ref().map_or(0, BTreeSet::len));
        if held > self.limit {
            let at = place().path;
            return Err(Doubt::Limit { what: "different store paths", limit: self.limit, at });
        }
        Ok(())
    }

    /// The paths, each once, in no order.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &StorePath> {
        self.paths.iter()
    }

    /// The paths with their places, sorted; empty unless made by [`Roots::with_places`].
    pub fn places(&self) -> impl Iterator<Item = &(StorePath, Place)> {
        self.places.iter().flatten()
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_different_paths_and_stops_at_the_limit() {
        let base = |c: char| format!("{}-x", c.to_string().repeat(32)).into_bytes();
        let mut roots = Roots::new().limited(2);
        for c in ['a', 'b', 'a', 'b'] {
            roots.add(&base(c), PathBuf::new).unwrap();
        }
        roots.add(b"no store path", PathBuf::new).unwrap();
        assert_eq!(roots.paths().len(), 2);
        let doubt = roots.add(&base('c'), || "/proc/7/environ".into()).unwrap_err();
        assert!(doubt.to_string().contains("/proc/7/environ"), "{doubt}");
    }

    #[test]
    fn keeps_each_place_once() {
        let base = format!("{}-x", "a".repeat(32)).into_bytes();
        let mut roots = Roots::with_places();
        for place in ["/b", "/a", "/b"] {
            roots.add(&base, || place.into()).unwrap();
        }
        let places: Vec<_> = roots.places().map(|(_, place)| place.path.to_str().unwrap()).collect();
        assert_eq!(places, ["/a", "/b"]);
    }
}
