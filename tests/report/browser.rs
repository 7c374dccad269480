//! Chromium without a window, steered by its driver (WebDriver, https://www.w3.org/TR/webdriver2/).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A screen.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub name: &'static str,
    width: u32,
    height: u32,
    /// Pixels of the device for one of CSS.
    scale: u32,
    mobile: bool,
}

impl Screen {
    pub const DESKTOP: Self = Self { name: "desktop", width: 1280, height: 900, scale: 1, mobile: false };
    pub const PHONE: Self = Self { name: "phone", width: 390, height: 844, scale: 1, mobile: true };
}

/// A browser with one page.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
}

/// Whether this process is in a network namespace that has no way out: nothing but the loopback.
pub fn is_cut_off() -> Result<bool> {
    let routes = std::fs::read_to_string("/proc/net/route")?;
    Ok(routes.lines().count() <= 1)
}

impl Browser {
    pub fn start() -> Result<Self> {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .context("this needs Debian's package chromium-driver")?;
        let mut lines = BufReader::new(driver.stdout.take().context("no pipe")?).lines();
        let port = loop {
            let line = lines.next().context("chromedriver ended")??;
            if let Some((_, rest)) = line.split_once("successfully on port ") {
                break rest.chars().take_while(char::is_ascii_digit).collect::<String>();
            }
        };
        // It blocks when nobody reads on.
        std::thread::spawn(move || lines.for_each(drop));
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).proxy(None);
        let mut browser = Self {
            driver,
            agent: config.http_status_as_error(false).build().into(),
            session: format!("http://127.0.0.1:{port}/session"),
        };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
        ];
        let opened = browser.post(
            "",
            &json!({ "capabilities": { "alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": { "args": arguments },
                "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
            } } }),
        )?;
        let id = opened["sessionId"].as_str().with_context(|| format!("no session: {opened}"))?;
        browser.session = format!("{}/{id}", browser.session);
        Ok(browser)
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        let mut answer = self.agent.post(format!("{}{path}", self.session)).send(body.to_string())?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let value = answer["value"].take();
        match value.get("error") {
            Some(error) => bail!("{path}: {error}: {}", value["message"]),
            None => Ok(value),
        }
    }

    fn devtools(&mut self, command: &str, parameters: &Value) -> Result<Value> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    pub fn screen(&mut self, screen: Screen, dark: bool) -> Result<()> {
        let Screen { width, height, scale, mobile, .. } = screen;
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile }),
        )?;
        let scheme = json!({ "name": "prefers-color-scheme", "value": if dark { "dark" } else { "light" } });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": [scheme] }))?;
        Ok(())
    }

    /// Opens a file, and forgets what was logged before.
    pub fn open(&mut self, path: &Path) -> Result<()> {
        self.post("/url", &json!({ "url": "about:blank" }))?;
        for log in ["browser", "performance"] {
            self.log(log)?;
        }
        self.post("/url", &json!({ "url": format!("file://{}", path.display()) }))?;
        Ok(())
    }

    fn log(&mut self, kind: &str) -> Result<Vec<Value>> {
        let entries = self.post("/se/log", &json!({ "type": kind }))?;
        Ok(entries.as_array().context("no log")?.clone())
    }

    /// What the console says of the page, and what it asked for besides itself.
    pub fn complaints(&mut self, path: &Path) -> Result<Vec<String>> {
        let mut found: Vec<_> =
            self.log("browser")?.iter().map(|entry| format!("console: {}", entry["message"])).collect();
        let mut pages = 0;
        for entry in self.log("performance")? {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap_or_default())?;
            let message = &event["message"];
            if message["method"] != "Network.requestWillBeSent" {
                continue;
            }
            let url = message["params"]["request"]["url"].as_str().unwrap_or_default();
            match url == format!("file://{}", path.display()) {
                true => pages += 1,
                false if url.starts_with("data:") || url == "about:blank" => {}
                false => found.push(format!("it asked for {url}")),
            }
        }
        ensure!(pages == 1, "the log shows {pages} requests for the page: requests are not seen");
        Ok(found)
    }

    pub fn run(&mut self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The whole page, as a PNG.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let metrics = self.devtools("Page.getLayoutMetrics", &json!({}))?;
        let size = &metrics["cssContentSize"];
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let shot =
            self.devtools("Page.captureScreenshot", &json!({ "captureBeyondViewport": true, "clip": clip }))?;
        decode(shot["data"].as_str().context("no picture")?)
    }

    /// The page on paper, as a PDF. Paper is white, also where the screen is dark.
    pub fn print(&mut self) -> Result<Vec<u8>> {
        let dark = json!({ "name": "prefers-color-scheme", "value": "dark" });
        self.devtools("Emulation.setEmulatedMedia", &json!({ "media": "print", "features": [dark] }))?;
        let ground = self.run("return getComputedStyle(document.body).backgroundColor")?;
        ensure!(ground == "rgb(255, 255, 255)", "the paper is {ground}");
        let printed = self.devtools("Page.printToPDF", &json!({ "printBackground": true }))?;
        decode(printed["data"].as_str().context("no paper")?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser with the session.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Base64 (RFC 4648).
fn decode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.bytes().take_while(|byte| *byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("not base64"),
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Ok(bytes)
}
