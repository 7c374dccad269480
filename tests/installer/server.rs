//! A web server on loopback that serves one directory, badly when it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// How a file is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it is.
    Whole,
    /// The length of the whole, and half of the bytes.
    Half,
    /// With one byte changed.
    Altered,
    /// The header, and then nothing until the client goes.
    Stuck,
}

/// A running server; it ends with the test's process.
#[derive(Debug)]
pub struct Server {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    requests: Arc<AtomicUsize>,
    manner: Arc<Mutex<Manner>>,
}

impl Server {
    /// Serves the files in `directory`.
    pub fn start(directory: &Path) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let (requests, manner) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Manner::Whole)));
        let (seen, how, directory) = (Arc::clone(&requests), Arc::clone(&manner), directory.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.fetch_add(1, Ordering::SeqCst);
                let how = *how.lock().expect("no other thread panics with it");
                let directory: PathBuf = directory.clone();
                std::thread::spawn(move || serve(stream, &directory, how));
            }
        });
        Ok(Self { url, requests, manner })
    }

    /// From now on, files are served like this.
    pub fn serve(&self, manner: Manner) {
        *self.manner.lock().expect("no other thread panics with it") = manner;
    }

    /// How many requests came so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// One request. A client that goes away is no error.
fn serve(mut stream: TcpStream, directory: &Path, manner: Manner) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    let name = request.split(' ').nth(1)?.trim_start_matches('/');
    let Ok(mut body) = std::fs::read(directory.join(name)) else {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .ok();
    };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).ok()?;
    match manner {
        Manner::Whole => {}
        Manner::Half => body.truncate(body.len() / 2),
        Manner::Altered => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Manner::Stuck => {
            stream.write_all(&body[..1]).ok()?;
            lines.next();
            return None;
        }
    }
    stream.write_all(&body).ok()
}
