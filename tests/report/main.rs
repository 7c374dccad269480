//! The pages of `--html` in a real browser: `scripts/check-report` runs this, without a network.
//!
//! Each page is opened as a desktop and as a phone shows it, in light and in dark, and is printed. Pictures are left in
//! `target/report-pages` for people to look at.

mod browser;
mod samples;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use browser::{Browser, Screen};
use serde_json::{Value, json};

/// Looks at a page from inside, and returns what is wrong with it.
const LOOK: &str = include_str!("look.js");

#[test]
fn pages_are_right_in_a_browser() -> Result<()> {
    ensure!(browser::is_cut_off()?, "there is a network here: run scripts/check-report");
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/report-pages");
    fs::create_dir_all(&out)?;
    let mut browser = Browser::start()?;
    for sample in samples::all()? {
        let path = out.join(format!("{}.html", sample.name));
        fs::write(&path, &sample.page)?;
        for screen in [Screen::DESKTOP, Screen::PHONE] {
            for dark in [false, true] {
                let place = format!("{}-{}{}", sample.name, screen.name, if dark { "-dark" } else { "" });
                look(&mut browser, &path, screen, dark, &sample.headings).with_context(|| place.clone())?;
                // A picture takes longer than the look: one for each screen, one of each scheme.
                if dark == (screen.name == Screen::PHONE.name) {
                    fs::write(out.join(format!("{place}.png")), browser.picture()?)?;
                }
            }
        }
        let paper = browser.print().context("printing")?;
        ensure!(paper.starts_with(b"%PDF"), "no PDF");
        fs::write(out.join(format!("{}.pdf", sample.name)), paper)?;
    }
    Ok(())
}

/// A test that could not fail would prove nothing: each fault is seen.
#[test]
fn faults_are_seen() -> Result<()> {
    ensure!(browser::is_cut_off()?, "there is a network here: run scripts/check-report");
    let dir = tempfile::tempdir()?;
    let mut browser = Browser::start()?;
    let page = |body: &str| {
        format!("<!DOCTYPE html><meta name=viewport content='width=device-width'><h1>x</h1>{body}")
    };
    for (body, part) in [
        ("<script>console.error('broken')</script>", "console"),
        ("<img src='https://example.org/x.png' alt=''>", "https://example.org/x.png"),
        ("<script>1</script>", "script"),
        ("<div style='width: 3000px'>x</div>", "wider than the screen"),
        ("<p style='color: #ccc'>pale</p>", "contrast"),
        ("<p id=a>x<p id=a>y", "twice"),
        (
            "<svg viewBox='0 0 90 30'><rect class=pill width=20 height=20 /><text class=account y=15>much too long</text></svg>",
            "pill",
        ),
    ] {
        let path = dir.path().join("page.html");
        fs::write(&path, page(body))?;
        let said = look(&mut browser, &path, Screen::DESKTOP, false, &["x"]);
        let said = format!("{:#}", said.err().with_context(|| format!("not seen: {body}"))?);
        ensure!(said.contains(part), "{part:?} is not told: {said}");
    }
    Ok(())
}

fn look(browser: &mut Browser, path: &Path, screen: Screen, dark: bool, headings: &[&str]) -> Result<()> {
    browser.screen(screen, dark)?;
    browser.open(path)?;
    let mut wrong = browser.complaints(path)?;
    let seen: Value = browser.run(LOOK)?;
    wrong.extend(
        seen["wrong"].as_array().into_iter().flatten().map(|text| text.as_str().unwrap_or("?").to_owned()),
    );
    for heading in headings {
        if !seen["headings"].as_array().is_some_and(|all| all.contains(&json!(heading))) {
            wrong.push(format!("no heading {heading:?} in {}", seen["headings"]));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
