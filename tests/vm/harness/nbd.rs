//! The least of the NBD protocol that an emulator's disk needs, over a Unix socket.
//!
//! Numbers and forms: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>. One export, simple replies;
//! the disk says that it has a write cache (flush, and force-unit-access on single writes).

use std::io::{self, Read, Write};

/// What answers a client's requests. Every call returns before the client is answered.
pub trait Disk {
    /// Bytes.
    fn size(&self) -> u64;
    /// Fills `bytes` from `offset`.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Takes `bytes` for `offset`; `durable` asks that they are on the medium before the answer.
    fn write(&mut self, offset: u64, bytes: &[u8], durable: bool) -> io::Result<()>;
    /// Puts everything that was written on the medium.
    fn flush(&mut self) -> io::Result<()>;
}

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const HAVE_OPTIONS: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
/// "fixed newstyle" and "no zeroes".
const HANDSHAKE_FLAGS: u16 = 0b11;
const OPTION_EXPORT_NAME: u32 = 1;
const OPTION_ABORT: u32 = 2;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = (1 << 31) + 1;
/// Has flags, takes flush, takes force-unit-access.
const EXPORT_FLAGS: u16 = 1 | 1 << 2 | 1 << 3;
const FORCE_UNIT_ACCESS: u16 = 1;
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
/// No client that we start asks for more at once.
const LONGEST: u32 = 64 << 20;

/// Serves one client until it goes.
pub fn serve<S: Read + Write>(mut client: S, disk: &mut dyn Disk) -> io::Result<()> {
    if negotiate(&mut client, disk.size())? {
        while transmit(&mut client, disk)? {}
    }
    Ok(())
}

/// Whether the client wants the disk.
fn negotiate<S: Read + Write>(client: &mut S, size: u64) -> io::Result<bool> {
    client.write_all(&MAGIC.to_be_bytes())?;
    client.write_all(&HAVE_OPTIONS.to_be_bytes())?;
    client.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
    let _flags: [u8; 4] = take(client)?;
    loop {
        if u64::from_be_bytes(take(client)?) != HAVE_OPTIONS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let option = u32::from_be_bytes(take(client)?);
        let length = u32::from_be_bytes(take(client)?);
        take_many(client, length)?;
        let mut reply = |kind: u32, data: &[u8]| -> io::Result<()> {
            let length = data.len() as u32;
            client.write_all(&OPTION_REPLY.to_be_bytes())?;
            client.write_all(&[option.to_be_bytes(), kind.to_be_bytes(), length.to_be_bytes()].concat())?;
            client.write_all(data)
        };
        // Kind of information 0: size and flags of the export.
        let export = [&size.to_be_bytes()[..], &EXPORT_FLAGS.to_be_bytes()].concat();
        match option {
            OPTION_INFO | OPTION_GO => {
                reply(REPLY_INFO, &[&0u16.to_be_bytes()[..], &export].concat())?;
                reply(REPLY_ACK, &[])?;
                if option == OPTION_GO {
                    return Ok(true);
                }
            }
            OPTION_EXPORT_NAME => return client.write_all(&export).map(|()| true),
            OPTION_ABORT => return reply(REPLY_ACK, &[]).map(|()| false),
            _ => reply(REPLY_UNSUPPORTED, &[])?,
        }
    }
}

/// Answers one request; whether there may be another.
fn transmit<S: Read + Write>(client: &mut S, disk: &mut dyn Disk) -> io::Result<bool> {
    if u32::from_be_bytes(take(client)?) != REQUEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let flags = u16::from_be_bytes(take(client)?);
    let kind = u16::from_be_bytes(take(client)?);
    let cookie: [u8; 8] = take(client)?;
    let offset = u64::from_be_bytes(take(client)?);
    let length = u32::from_be_bytes(take(client)?);
    let mut data = Vec::new();
    let done = match kind {
        READ => {
            data = vec![0; length.min(LONGEST) as usize];
            disk.read(offset, &mut data)
        }
        WRITE => {
            let bytes = take_many(client, length)?;
            disk.write(offset, &bytes, flags & FORCE_UNIT_ACCESS != 0)
        }
        FLUSH => disk.flush(),
        DISCONNECT => return Ok(false),
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    // Error numbers are Linux's.
    let error = done.err().map_or(0, |error| error.raw_os_error().unwrap_or(nix::libc::EINVAL)) as u32;
    client.write_all(&[SIMPLE_REPLY.to_be_bytes(), error.to_be_bytes()].concat())?;
    client.write_all(&cookie)?;
    client.write_all(if error == 0 { &data } else { &[] })?;
    Ok(true)
}

fn take<const N: usize>(client: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn take_many(client: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}
