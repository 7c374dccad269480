//! Downloads over TLS from a server that only a private authority vouches for, directly and through a proxy.

use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;

/// A name that nobody can look up (RFC 6761): only a proxy can lead there.
const NAME: &str = "archive.invalid";

/// An authority, and where its certificate lies.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    _dir: tempfile::TempDir,
    file: PathBuf,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, _dir: dir, file }
    }

    /// A server with a certificate of this authority, which gives [`BODY`] to whoever goes on after seeing that.
    fn serve(&self) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let names = vec![NAME.to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                // A client that does not trust us says so, and goes.
                if head(&mut stream).is_empty() {
                    continue;
                }
                let length = BODY.len();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
                    .unwrap();
                stream.write_all(BODY).unwrap();
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        address
    }
}

/// The lines of a request; none when the client went away before.
fn head(stream: &mut impl Read) -> Vec<String> {
    let lines = BufReader::with_capacity(1, stream).lines();
    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect()
}

/// A proxy that leads every connection to `to`; its address, and the requests that it sees.
fn proxy(to: SocketAddr) -> (SocketAddr, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = channel();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            // Nobody may want to know any more.
            let _ = sender.send(head(&mut client));
            let mut server = TcpStream::connect(to).unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
            let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut back);
                let _ = back.shutdown(Shutdown::Both);
            });
            let _ = std::io::copy(&mut server, &mut client);
            let _ = client.shutdown(Shutdown::Both);
        }
    });
    (address, seen)
}

fn fetch(url: &str, certificates: Option<&Path>, proxy: Option<&str>) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    Download { url, certificates, proxy }.to(&path, &mut |_, _| Ok(()))?;
    Ok(std::fs::read(&path).unwrap())
}

#[test]
fn a_private_authority_is_trusted_when_its_file_is_named_and_no_other_is() {
    let (ours, other) = (Authority::new(), Authority::new());
    let url = format!("https://{}/nix.tar.xz", ours.serve());
    assert_eq!(fetch(&url, Some(&ours.file), None).unwrap(), BODY);
    for certificates in [None, Some(other.file.as_path())] {
        let said = format!("{:#}", fetch(&url, certificates, None).unwrap_err());
        assert!(said.contains("certificate") && said.contains(&url), "{said}");
        assert!(!said.contains("attempts"), "no second attempt can help: {said}");
    }
}

#[test]
fn a_proxy_leads_where_no_name_server_does() {
    let authority = Authority::new();
    let url = format!("https://{NAME}/nix.tar.xz");
    let (address, seen) = proxy(authority.serve());
    let named = format!("http://somebody:secret@{address}");
    assert_eq!(fetch(&url, Some(&authority.file), Some(&named)).unwrap(), BODY);
    let request = seen.recv().unwrap();
    assert!(request[0].starts_with(&format!("CONNECT {NAME}:443 ")), "{request:?}");
    let credentials = |line: &String| line.to_lowercase().starts_with("proxy-authorization: basic ");
    assert!(request.iter().any(credentials), "{request:?}");

    // The proxy sees where we go, but cannot pose as that.
    let (address, _seen) = proxy(Authority::new().serve());
    let said =
        format!("{:#}", fetch(&url, Some(&authority.file), Some(&format!("http://{address}"))).unwrap_err());
    assert!(said.contains("certificate"), "{said}");
}
