//! Filling in a plan's template.

use anyhow::{Context as _, Result, bail};
use toml::{Table, Value};

use super::context::Context;
use super::template_of;
use crate::platform::{template, texts};

/// A plan's template with everything filled in: steps left out by `when`, repeated by `for-each`, texts of
/// templates put in, names replaced by values.
pub fn resolve(text: &str, context: &Context) -> Result<Table> {
    let mut plan: Table = toml::from_str(text).context("a plan of this tool is not TOML")?;
    plan.insert("made_from".to_owned(), Value::String(String::new()));
    let steps = with_included(&mut plan)?;
    let mut filled = Vec::new();
    for step in steps {
        let id = step.get("id").and_then(Value::as_str).unwrap_or("(without id)").to_owned();
        let steps = resolve_step(step, context).with_context(|| format!("in the plan's step {id}"))?;
        filled.extend(steps.into_iter().map(Value::Table));
    }
    // The words of a stage without steps may name what has no value here.
    if let Some(Value::Table(stages)) = plan.get_mut("stages") {
        stages.retain(|name, _| {
            filled.iter().any(|step| step.get("stage").and_then(Value::as_str) == Some(name))
        });
    }
    let mut plan = fill_table(plan, context)?;
    plan.insert("step".to_owned(), Value::Array(filled));
    Ok(plan)
}

/// The plan's steps, those that it takes from other plans in their place, and the stages of those added to its own.
fn with_included(plan: &mut Table) -> Result<Vec<Table>> {
    let mut steps = Vec::new();
    for mut step in steps_of(plan)? {
        let Some(include) = step.remove("include") else {
            steps.push(step);
            continue;
        };
        let name = include.as_str().context("`include` is not a name")?;
        let mut other: Table = toml::from_str(template_of(name)?)?;
        let included = with_included(&mut other)?;
        let at = |key: &str| {
            let id = step.get(key).and_then(Value::as_str).unwrap_or_default();
            let is = |step: &Table| step.get("id").and_then(Value::as_str) == Some(id);
            included.iter().position(is).with_context(|| format!("the plan {name} has no step {id:?}"))
        };
        let range = included.get(at("from")?..=at("to")?).context("`from` comes after `to`")?;
        for included in range {
            let mut included = included.clone();
            for key in ["stage", "when"] {
                included.extend(step.get(key).map(|value| (key.to_owned(), value.clone())));
            }
            steps.push(included);
        }
        let Some(Value::Table(stages)) = plan.get_mut("stages") else { bail!("a plan has no stages") };
        let Some(Value::Table(more)) = other.remove("stages") else { bail!("a plan has no stages") };
        let used =
            |name: &str| steps.iter().any(|step| step.get("stage").and_then(Value::as_str) == Some(name));
        for (name, words) in more.into_iter().filter(|(name, _)| used(name)) {
            stages.entry(name).or_insert(words);
        }
    }
    Ok(steps)
}

fn steps_of(plan: &mut Table) -> Result<Vec<Table>> {
    let Some(Value::Array(steps)) = plan.remove("step") else { bail!("a plan of this tool has no steps") };
    let table = |step| match step {
        Value::Table(step) => Ok(step),
        _ => bail!("a step of a plan is not a table"),
    };
    steps.into_iter().map(table).collect()
}

fn resolve_step(mut step: Table, context: &Context) -> Result<Vec<Table>> {
    if let Some(condition) = step.remove("when") {
        let name = condition.as_str().context("`when` is not a name")?;
        if context.value(name)?.is_none() {
            return Ok(Vec::new());
        }
    }
    if let Some(Value::String(name)) = step.remove("template") {
        let text = template::fill(texts::text(&name)?, &context.texts())
            .with_context(|| format!("in the template {name}"))?;
        step.insert("text".to_owned(), Value::String(text));
    }
    let Some(list) = step.remove("for-each") else { return Ok(vec![fill_table(step, context)?]) };
    let items = match &list {
        Value::Array(items) => items.clone(),
        Value::String(name) => {
            context.value(name)?.and_then(|value| value.as_array().cloned()).unwrap_or_default()
        }
        _ => bail!("`for-each` is neither a list nor the name of one"),
    };
    let mut steps = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let mut one = fill_table(step.clone(), &context.with_item(item))?;
        if let Some(Value::String(id)) = one.get_mut("id") {
            id.push_str(&format!("-{}", index + 1));
        }
        steps.push(one);
    }
    Ok(steps)
}

fn fill_table(table: Table, context: &Context) -> Result<Table> {
    let mut filled = Table::new();
    for (key, value) in table {
        // A template's text is filled in already, and may hold braces of its own; so may one that comes from an item.
        let from_item = value.as_str() == Some("{{item.text}}");
        let value = if key == "text" && !from_item { Some(value) } else { fill_value(value, context)? };
        if let Some(value) = value {
            filled.insert(key, value);
        }
    }
    Ok(filled)
}

/// The value with names replaced; `None` when it is a name that has no value on this machine.
fn fill_value(value: Value, context: &Context) -> Result<Option<Value>> {
    Ok(match value {
        Value::String(text) => match whole_name(&text) {
            Some(name) => context.value(name)?.cloned(),
            None => Some(Value::String(template::fill(&text, &context.texts())?)),
        },
        Value::Array(values) => {
            let filled =
                values.into_iter().map(|value| fill_value(value, context)).collect::<Result<Vec<_>>>()?;
            Some(Value::Array(filled.into_iter().flatten().collect()))
        }
        Value::Table(table) => Some(Value::Table(fill_table(table, context)?)),
        other => Some(other),
    })
}

/// `name` of a text that is `{{name}}` and nothing else: it becomes a number or a list where the value is one.
fn whole_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("{{")?.strip_suffix("}}")?;
    (!name.contains('{')).then_some(name)
}
