//! Fetching a file over HTTP, going on where an earlier attempt broke off.
//!
//! What arrives is not trusted: whoever asked compares its digest.

mod agent;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often a connection that breaks off is made again.
const ATTEMPTS: u32 = 5;
/// The largest file that is taken, in bytes.
const LARGEST: u64 = 2 << 30;

/// Told how many bytes are there, and of how many (0 when the server does not say); an error stops the download.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// What to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// `https://` or `http://`.
    pub url: &'a str,
    /// A PEM file of certificates to trust, instead of the system's.
    pub certificates: Option<&'a Path>,
    /// A proxy to go through, instead of the one in the environment.
    pub proxy: Option<&'a str>,
}

impl Download<'_> {
    /// Fetches into `path`. What `path` holds is taken for the beginning of the file, and stays there when this fails.
    ///
    /// # Errors
    /// When the server cannot be reached, or says no, or breaks off again and again.
    pub fn to(&self, path: &Path, progress: Progress<'_>) -> Result<()> {
        let agent = agent::agent(self.certificates, self.proxy)?;
        let context = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(context)?;
        let mut attempt = 1;
        loop {
            match self.try_once(&agent, &mut file, progress) {
                Ok(()) => return file.sync_all().with_context(context),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(error)) if attempt == ATTEMPTS => {
                    return Err(error.context(format!(
                        "cannot fetch {} ({ATTEMPTS} attempts); what arrived is kept, and the next attempt goes on from there",
                        self.url
                    )));
                }
                Err(Failure::Passing(_)) => {
                    std::thread::sleep(Duration::from_millis(200) * 2_u32.pow(attempt));
                    attempt += 1;
                }
            }
        }
    }

    fn try_once(
        &self,
        agent: &ureq::Agent,
        file: &mut File,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<(), Failure> {
        let there = file.seek(SeekFrom::End(0)).context("cannot seek").map_err(Failure::Final)?;
        let mut request = agent.get(self.url);
        if there > 0 {
            request = request.header("Range", format!("bytes={there}-"));
        }
        let mut response = request.call().map_err(|error| self.failure(error))?;
        let mut done = there;
        match response.status().as_u16() {
            206 if starts_at(&response, there) => {}
            // All of it, or something that is no part of it: from the beginning.
            200 | 206 => done = restart(file)?,
            // Nothing after what is there: it is whole, or it is not this file. The digest tells.
            416 if there > 0 => return Ok(()),
            status => {
                return Err(Failure::Final(anyhow::anyhow!("{} answers with status {status}", self.url)));
            }
        }
        let total = response.body().content_length().map_or(0, |rest| done + rest);
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) if total > 0 && done < total => {
                    return Err(Failure::Passing(anyhow::anyhow!("the connection broke off")));
                }
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) => return Err(Failure::Passing(error.into())),
            };
            done += count as u64;
            if done > LARGEST {
                return Err(Failure::Final(anyhow::anyhow!("{} is larger than {LARGEST} bytes", self.url)));
            }
            file.write_all(&buffer[..count]).context("cannot write").map_err(Failure::Final)?;
            progress(done, total).map_err(Failure::Final)?;
        }
    }

    fn failure(&self, error: ureq::Error) -> Failure {
        use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
        let passing = match &error {
            // A certificate that is not trusted now is not trusted in a second either.
            Io(error) => error.kind() != std::io::ErrorKind::InvalidData,
            ConnectionFailed | HostNotFound | Timeout(_) => true,
            _ => false,
        };
        let error = anyhow::Error::new(error).context(format!("cannot fetch {}", self.url));
        if passing { Failure::Passing(error) } else { Failure::Final(error) }
    }
}

/// Why an attempt failed, and whether another one makes sense.
enum Failure {
    Passing(anyhow::Error),
    Final(anyhow::Error),
}

fn restart(file: &mut File) -> Result<u64, Failure> {
    file.set_len(0).context("cannot begin anew").map_err(Failure::Final)?;
    file.seek(SeekFrom::Start(0)).context("cannot begin anew").map_err(Failure::Final)
}

/// Whether a part of a file begins where ours ends: `Content-Range: bytes 5-9/10`.
fn starts_at(response: &ureq::http::Response<ureq::Body>, offset: u64) -> bool {
    let range = response.headers().get("Content-Range").and_then(|value| value.to_str().ok());
    range
        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok())
        .is_some_and(|start: u64| start == offset)
}
