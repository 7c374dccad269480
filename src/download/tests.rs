//! Downloads from servers that misbehave, on the loopback interface.

mod secured;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::bail;

use super::*;

/// What a server does with one connection: it sees the request's lines.
type Serve = fn(&mut TcpStream, &[String]);

const BODY: &[u8] = b"0123456789abcdef";

/// A server that answers one connection after the other, each in its way; its URL, and what it was asked.
fn server(answers: Vec<Serve>) -> (String, thread::JoinHandle<Vec<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/nix.tar.xz", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let serve = |answer: Serve| {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request: Vec<_> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            answer(&mut stream, &request);
            request
        };
        answers.into_iter().map(serve).collect()
    });
    (url, asked)
}

fn whole(stream: &mut TcpStream, _: &[String]) {
    reply(stream, "200 OK", "", BODY.len(), BODY);
}

/// Promises everything and breaks off after seven bytes.
fn broken(stream: &mut TcpStream, _: &[String]) {
    reply(stream, "200 OK", "", BODY.len(), &BODY[..7]);
}

/// What the request's `Range` asks for.
fn rest(stream: &mut TcpStream, request: &[String]) {
    let from: usize = range(request).unwrap();
    let header = format!("Content-Range: bytes {from}-{}/{}\r\n", BODY.len() - 1, BODY.len());
    reply(stream, "206 Partial Content", &header, BODY.len() - from, &BODY[from..]);
}

/// A part that nobody asked for.
fn wrong_part(stream: &mut TcpStream, _: &[String]) {
    reply(stream, "206 Partial Content", "Content-Range: bytes 0-15/16\r\n", BODY.len(), BODY);
}

fn missing(stream: &mut TcpStream, _: &[String]) {
    reply(stream, "404 Not Found", "", 0, b"");
}

fn nothing_left(stream: &mut TcpStream, _: &[String]) {
    reply(stream, "416 Range Not Satisfiable", "", 0, b"");
}

fn reply(stream: &mut TcpStream, status: &str, headers: &str, length: usize, body: &[u8]) {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n")
        .unwrap();
    stream.write_all(body).unwrap();
}

fn range(request: &[String]) -> Option<usize> {
    let header = request.iter().find(|line| line.to_lowercase().starts_with("range:"))?;
    header.split("bytes=").nth(1)?.trim_end_matches('-').parse().ok()
}

/// What is in the file after a download that began with `there`, and what the server was asked.
fn fetched(answers: Vec<Serve>, there: &[u8]) -> (Result<Vec<u8>>, Vec<Vec<String>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    std::fs::write(&path, there).unwrap();
    let (url, asked) = server(answers);
    let download = Download { url: &url, certificates: None, proxy: None };
    let result = download.to(&path, &mut |done, total| {
        assert!(total == 0 || done <= total, "{done} of {total}");
        Ok(())
    });
    (result.map(|()| std::fs::read(&path).unwrap()), asked.join().unwrap())
}

#[test]
fn a_download_that_breaks_off_goes_on() {
    let (file, asked) = fetched(vec![broken, rest], b"");
    assert_eq!(file.unwrap(), BODY);
    assert_eq!((range(&asked[0]), range(&asked[1])), (None, Some(7)));
}

#[test]
fn what_an_earlier_run_left_is_gone_on_with() {
    assert_eq!(fetched(vec![rest], &BODY[..5]).0.unwrap(), BODY);
    assert_eq!(fetched(vec![nothing_left], BODY).0.unwrap(), BODY);
}

#[test]
fn a_server_without_ranges_is_read_from_the_beginning() {
    assert_eq!(fetched(vec![whole], &BODY[..5]).0.unwrap(), BODY);
    assert_eq!(fetched(vec![wrong_part], &BODY[..5]).0.unwrap(), BODY);
}

#[test]
fn a_refusal_is_final_and_named() {
    let (result, asked) = fetched(vec![missing], b"");
    let said = format!("{:#}", result.unwrap_err());
    assert!(said.contains("404") && said.contains("/nix.tar.xz"), "{said}");
    assert_eq!(asked.len(), 1);
}

#[test]
fn a_server_that_always_breaks_off_is_given_up_and_what_came_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    // Without ranges each attempt begins anew.
    let (url, asked) = server(vec![broken; ATTEMPTS as usize]);
    let download = Download { url: &url, certificates: None, proxy: None };
    let said = format!("{:#}", download.to(&path, &mut |_, _| Ok(())).unwrap_err());
    assert!(said.contains("attempts") && said.contains("is kept"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), &BODY[..7]);
    assert_eq!(asked.join().unwrap().len(), ATTEMPTS as usize);
}

#[test]
fn a_signal_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _asked) = server(vec![whole]);
    let download = Download { url: &url, certificates: None, proxy: None };
    let said = download.to(&dir.path().join("part"), &mut |_, _| bail!("stopped by a signal")).unwrap_err();
    assert_eq!(said.to_string(), "stopped by a signal");
}

#[test]
fn a_file_without_certificates_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, "no certificate\n").unwrap();
    let download = Download { url: "https://127.0.0.1:1/x", certificates: Some(&file), proxy: None };
    let said = download.to(&dir.path().join("part"), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(said.contains("holds no certificate"), "{said}");
}
