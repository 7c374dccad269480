//! `config --example`: a file with every key, made from what the flags say of themselves.

use super::keys::{Key, Kind};

const HEAD: &str = "\
# /etc/nix-unroot.toml: settings of nix-unroot. Each is also a flag, and a variable of the environment; a flag outranks
# the variable, which outranks this file. Take the # away in front of what is to count.
";

/// Values to show where neither parser nor help have one, and the value's name would be no number.
const NUMBERS: [(&str, &str); 2] = [("nix-uid", "980"), ("nix-gid", "980")];

/// The file's text.
pub fn example(keys: &[Key]) -> String {
    let mut text = HEAD.to_owned();
    let mut section = None;
    for key in keys {
        if section != key.section.as_ref() {
            section = key.section.as_ref();
            let name = section.map_or("", String::as_str);
            text.push_str(&format!("\n[{name}]\n# for nix-unroot {name} alone\n"));
        }
        let help = key.help().replace('\n', "\n# ");
        let choices = key.choices();
        let choices = if choices.is_empty() { String::new() } else { format!(" ({})", choices.join(", ")) };
        text.push_str(&format!(
            "\n# {help}{choices}\n# --{}, {}\n#{} = {}\n",
            key.name,
            key.variable,
            key.name,
            value(key)
        ));
    }
    text
}

fn value(key: &Key) -> String {
    let number = NUMBERS.iter().find(|(name, _)| *name == key.name).map(|(_, value)| (*value).to_owned());
    let value = key
        .default()
        .or(number)
        .or_else(|| key.choices().into_iter().next())
        .unwrap_or_else(|| key.value_name());
    match key.kind {
        Kind::Switch | Kind::Number => value,
        Kind::Text => toml::Value::String(value).to_string(),
        Kind::List => toml::Value::Array(vec![toml::Value::String(value)]).to_string(),
    }
}
