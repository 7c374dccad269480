//! POSIX access control lists, as the kernel stores them: a version (2, little endian), then entries of a tag, permissions and an
//! id (`include/uapi/linux/posix_acl_xattr.h`).

use super::subject::Subject;

/// The extended attribute that holds one.
pub const ATTRIBUTE: &str = "system.posix_acl_access";

const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const WRITE: u16 = 0x02;

/// Whether the list lets the subject write, by a named user, a named group, or the file's own group `gid`; the owner and all others are
/// in the mode. A list that is not understood counts as one that does.
pub fn lets_write(list: &[u8], subject: &Subject, gid: u32) -> bool {
    let Some((version, entries)) = list.split_first_chunk::<4>() else { return true };
    if u32::from_le_bytes(*version) != 2 || entries.len() % 8 != 0 {
        return true;
    }
    let entry = |bytes: &[u8]| {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        (number(0), number(2), u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]))
    };
    let entries: Vec<_> = entries.chunks_exact(8).map(entry).collect();
    let mask = entries.iter().find(|(tag, ..)| *tag == MASK).map_or(7, |(_, permissions, _)| *permissions);
    entries.iter().any(|(tag, permissions, id)| {
        let of_subject = match *tag {
            USER => subject.has_uid(*id),
            GROUP => subject.has_gid(*id),
            GROUP_OBJ => subject.has_gid(gid),
            _ => false,
        };
        of_subject && permissions & mask & WRITE != 0
    })
}
