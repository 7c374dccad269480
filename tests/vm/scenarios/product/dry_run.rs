//! Looking changes nothing.

use super::ready;
use crate::harness::layout::Layout;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, product, strace};
use anyhow::{Result, ensure};

on_both_layouts!(looking_writes_nothing, the_plan_is_always_the_same);

fn looking_writes_nothing(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "dry-run")?;
    nixcmd::trust(&machine, "alice")?;
    let before = Manifest::take(&machine)?;
    for (arguments, status) in [
        ("migrate --dry-run", 0),
        ("migrate --dry-run --exit-code", 5),
        ("plan --format json", 0),
        ("inspect --json", 0),
    ] {
        let writes =
            strace::writes_of(&machine, &format!("{}/nix-unroot {arguments}", product::DIR), status)?;
        ensure!(writes.is_empty(), "`{arguments}` wrote:\n{}", writes.join("\n"));
    }
    before.assert_same(&Manifest::take(&machine)?, "after looking")
}

fn the_plan_is_always_the_same(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "plan")?;
    let first = product::ok(&machine, "plan --format json")?;
    let plan: serde_json::Value = serde_json::from_str(&first)?;
    ensure!(plan.is_object() || plan.is_array(), "not a plan: {first}");
    ensure!(product::ok(&machine, "plan --format json")? == first, "the same machine, another plan");
    Ok(())
}
