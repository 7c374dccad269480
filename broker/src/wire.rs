//! What goes over the socket.
//!
//! The client sends one request and then only keeps the connection open: closing it ends the build. The request is [`MAGIC`], a length, and that
//! many bytes: numbers are 32 bits, little endian; a text is its length and its bytes; a list is its count and its items. There is nothing
//! nested and nothing optional, so that what root has to parse is [`decode`], on one screen.
//!
//! The broker answers with frames: a byte that tells the kind, a length, and that many bytes.

use crate::{Failure, Result, while_doing};
use std::io::{Read, Write};

/// What a request begins with; the number is the version.
pub const MAGIC: &[u8] = b"nix-build-broker 1\n";
/// The longest request, in bytes. Files of `passAsFile` and `exportReferencesGraph` are part of it.
pub const MOST: usize = 128 << 20;
/// The longest list.
pub const MOST_ITEMS: usize = 1 << 16;
/// The longest frame of an answer.
pub const FRAME: usize = 64 << 10;

/// A build, as the daemon's side describes it. Nothing of it has been checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// The program.
    pub builder: &'a [u8],
    /// Its arguments, without its name.
    pub args: Vec<&'a [u8]>,
    /// Its environment: names and values.
    pub env: Vec<(&'a [u8], &'a [u8])>,
    /// The directory of the store.
    pub store: &'a [u8],
    /// What environment and files call the build directory.
    pub build_dir: &'a [u8],
    /// Paths that the build may read.
    pub inputs: Vec<&'a [u8]>,
    /// Paths that it is to make.
    pub outputs: Vec<&'a [u8]>,
    /// Names and contents of files that it finds in its directory.
    pub files: Vec<(&'a [u8], &'a [u8])>,
}

/// What follows [`MAGIC`] and the length.
#[must_use]
pub fn encode(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, request.builder);
    put_list(&mut bytes, &request.args, |bytes, item| put(bytes, item));
    put_list(&mut bytes, &request.env, put_pair);
    put(&mut bytes, request.store);
    put(&mut bytes, request.build_dir);
    put_list(&mut bytes, &request.inputs, |bytes, item| put(bytes, item));
    put_list(&mut bytes, &request.outputs, |bytes, item| put(bytes, item));
    put_list(&mut bytes, &request.files, put_pair);
    bytes
}

/// Reads [`encode`]'s form.
///
/// # Errors
/// When it is cut short, goes on behind its end, or has a list that is too long.
pub fn decode(bytes: &[u8]) -> Result<Request<'_>> {
    let mut rest = Rest(bytes);
    let request = Request {
        builder: rest.text()?,
        args: rest.list(Rest::text)?,
        env: rest.list(Rest::pair)?,
        store: rest.text()?,
        build_dir: rest.text()?,
        inputs: rest.list(Rest::text)?,
        outputs: rest.list(Rest::text)?,
        files: rest.list(Rest::pair)?,
    };
    if rest.0.is_empty() { Ok(request) } else { Err(malformed("it goes on behind its end")) }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn number(&mut self) -> Result<usize> {
        let (number, rest) = self.0.split_first_chunk().ok_or_else(|| malformed("it is cut short"))?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*number) as usize)
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("it is cut short"))?;
        self.0 = rest;
        Ok(text)
    }

    fn pair(&mut self) -> Result<(&'a [u8], &'a [u8])> {
        Ok((self.text()?, self.text()?))
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.number()?;
        if count > MOST_ITEMS {
            return Err(malformed("a list is too long"));
        }
        (0..count).map(|_| item(self)).collect()
    }
}

fn malformed(what: &str) -> Failure {
    Failure::new(format!("a request is malformed: {what}"))
}

fn put_number(bytes: &mut Vec<u8>, number: usize) {
    // Nothing here comes near to 4 GiB: the client checks the whole, and a frame is short.
    bytes.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    put_number(bytes, text.len());
    bytes.extend(text);
}

fn put_pair(bytes: &mut Vec<u8>, (one, other): &(&[u8], &[u8])) {
    put(bytes, one);
    put(bytes, other);
}

fn put_list<T>(bytes: &mut Vec<u8>, list: &[T], item: impl Fn(&mut Vec<u8>, &T)) {
    put_number(bytes, list.len());
    for one in list {
        item(bytes, one);
    }
}

/// Sends a request.
///
/// # Errors
/// When it is too long, or the broker is gone.
pub fn send(mut to: impl Write, request: &Request<'_>) -> Result<()> {
    let body = encode(request);
    if body.len() > MOST {
        return Err(Failure::new(format!(
            "the build's description with its files has {} bytes, more than the {MOST} that the broker takes",
            body.len()
        )));
    }
    let mut head = MAGIC.to_vec();
    put_number(&mut head, body.len());
    to.write_all(&head).and_then(|()| to.write_all(&body)).map_err(while_doing("talk to the broker"))
}

/// Reads a request's bytes, for [`decode`].
///
/// # Errors
/// When it is another version's, too long, or does not come.
pub fn receive(mut from: impl Read) -> Result<Vec<u8>> {
    let mut head = [0; MAGIC.len() + 4];
    from.read_exact(&mut head).map_err(while_doing("read a request"))?;
    let (magic, length) = head.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(malformed("it is not of this version; client and broker have to be of one release"));
    }
    let length = Rest(length).number()?;
    if length > MOST {
        return Err(malformed("it is too long"));
    }
    let mut body = Vec::new();
    // Grows with what comes, so that a length alone takes no memory.
    let taken = from.take(length as u64).read_to_end(&mut body).map_err(while_doing("read a request"))?;
    if taken == length { Ok(body) } else { Err(malformed("it is cut short")) }
}

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A piece of the build's log.
    Log(Vec<u8>),
    /// The builder ended with this status, or 128 and the number of the signal that ended it; outputs, if any, are in the store.
    Ended(u8),
    /// There is no build, or its outputs were not taken, for this reason.
    Refused(String),
}

/// Sends a frame.
///
/// # Errors
/// When the client is gone.
pub fn answer(mut to: impl Write, answer: &Answer) -> std::io::Result<()> {
    let (kind, text): (u8, &[u8]) = match answer {
        Answer::Log(text) => (b'L', text),
        Answer::Ended(status) => (b'E', std::slice::from_ref(status)),
        Answer::Refused(reason) => (b'R', reason.as_bytes()),
    };
    let text = &text[..text.len().min(FRAME)];
    let mut frame = vec![kind];
    put(&mut frame, text);
    to.write_all(&frame)
}

/// Reads a frame.
///
/// # Errors
/// When the broker is gone, or says what it never says.
pub fn hear(mut from: impl Read) -> std::io::Result<Answer> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let [kind, length @ ..] = head;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    match (kind, text.as_slice()) {
        (b'L', _) => Ok(Answer::Log(text)),
        (b'E', [status]) => Ok(Answer::Ended(*status)),
        (b'R', _) => Ok(Answer::Refused(String::from_utf8_lossy(&text).into_owned())),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let request = Request {
            builder: b"/b",
            args: vec![b"-e", b""],
            env: vec![(b"a", b"1"), (b"b", b"")],
            store: b"/nix/store",
            build_dir: b"/build",
            inputs: vec![b"/nix/store/x"],
            outputs: vec![b"/nix/store/y", b"/nix/store/z"],
            files: vec![(b".attrs.json", b"{}\0")],
        };
        let mut sent = Vec::new();
        send(&mut sent, &request).unwrap();
        let body = receive(sent.as_slice()).unwrap();
        assert_eq!(decode(&body), Ok(request));
        for end in 0..body.len() {
            assert!(decode(&body[..end]).is_err(), "cut at {end}");
        }
        for end in 0..sent.len() {
            assert!(receive(&sent[..end]).is_err(), "cut at {end}");
        }
        assert!(decode(&[body.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_read() {
        let mut long = MAGIC.to_vec();
        put_number(&mut long, MOST + 1);
        assert!(receive(long.as_slice()).unwrap_err().to_string().contains("too long"));
        let mut many = Vec::new();
        put(&mut many, b"/b");
        put_number(&mut many, MOST_ITEMS + 1);
        assert!(decode(&many).unwrap_err().to_string().contains("too long"));
        let other = receive(&b"nix-build-broker 2\n\0\0\0\0"[..]).unwrap_err().to_string();
        assert!(other.contains("one release"), "{other}");
    }

    #[test]
    fn answers() {
        for given in [Answer::Log(b"x\n".to_vec()), Answer::Ended(137), Answer::Refused("no".to_owned())] {
            let mut sent = Vec::new();
            answer(&mut sent, &given).unwrap();
            assert_eq!(hear(sent.as_slice()).unwrap(), given);
        }
        for bad in [&b"L\xff\xff\xff\xff"[..], b"E\0\0\0\0", b"X\0\0\0\0", b"L\x05\0\0\0abc"] {
            assert!(hear(bad).is_err(), "{bad:?}");
        }
    }
}
