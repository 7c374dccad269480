//! `{{name}}` in embedded texts.

use std::collections::BTreeMap;

/// Why a text could not be filled in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text names something that was not given.
    #[error("unknown name {{{{{0}}}}}")]
    Unknown(String),
    /// A `{{` without its `}}`.
    #[error("{{{{ without }}}}")]
    Unclosed,
}

/// Replaces each `{{name}}` in `text` by its value.
///
/// # Errors
/// For a name that `values` lacks, and for a `{{` that is not closed.
pub fn fill(text: &str, values: &BTreeMap<String, String>) -> Result<String, TemplateError> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or(TemplateError::Unclosed)?;
        filled.push_str(before);
        filled.push_str(values.get(name).ok_or_else(|| TemplateError::Unknown(name.to_owned()))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_every_name_once() {
        let values = BTreeMap::from([("a".to_owned(), "{{b}}".to_owned()), ("b".to_owned(), "2".to_owned())]);
        assert_eq!(
            fill("x{{a}}y{{b}}{{b}}", &values).unwrap(),
            "x{{b}}y22",
            "a value is not filled in again"
        );
        assert_eq!(fill("{{c}}", &values), Err(TemplateError::Unknown("c".to_owned())));
        assert_eq!(fill("{{a", &values), Err(TemplateError::Unclosed));
    }
}
