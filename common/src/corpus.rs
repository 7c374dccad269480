//! The corpus of fuzz targets, run by a test.

use std::fs;
use std::path::Path;

/// Panics when what must hold for an input does not.
pub type Target = fn(&[u8]);

/// Feeds each target with every seed below `PACKAGE/fuzz/corpus/NAME`.
///
/// # Panics
/// When a target does, has fewer than three seeds, or no file in `PACKAGE/fuzz/targets`.
pub fn check(package: &str, targets: &[(&str, Target)]) {
    let fuzz = Path::new(package).join("fuzz");
    for (name, target) in targets {
        let seeds = fs::read_dir(fuzz.join("corpus").join(name))
            .unwrap_or_else(|error| panic!("the corpus of {name} is missing: {error}"));
        let mut count = 0;
        for seed in seeds.flatten() {
            target(&fs::read(seed.path()).unwrap_or_else(|error| panic!("{:?}: {error}", seed.path())));
            count += 1;
        }
        assert!(count > 2, "the corpus of {name} has {count} seeds");
        assert!(fuzz.join("targets").join(name).with_extension("rs").exists(), "{name} has no target");
    }
}
