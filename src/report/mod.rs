//! What is told of a machine: documents for programs, with their schemas, and reports for people, as text and as a page.

mod about;
mod document;
mod drawing;
mod machine;
mod overview;
mod page;
mod picture;
mod save;

pub use about::About;
pub use document::{Document, schema, to_json};
pub use machine::{Row, machine};
pub use overview::{Overview, Standing};
pub use page::{Report, Ways, page};
pub use save::save;

use crate::plan::Plan;
use crate::verify;

/// `plan --json`, which `migrate --plan` takes.
impl Document for Plan {
    const KIND: &'static str = "plan";
}

/// `verify --json`.
impl Document for verify::Report {
    const KIND: &'static str = "verify";
}
