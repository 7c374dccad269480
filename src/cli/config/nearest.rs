//! The name that somebody may have meant.

/// How alike names must be, from 0 to 1, for one to be named in place of the other: what clap takes for flags.
const ALIKE: f64 = 0.7;

/// The most similar of the names, if one is similar.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::jaro(wrong, name), name))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}
