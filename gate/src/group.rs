//! Groups of any size.
//!
//! The directory of a large organisation fills a group with more than the MiB at which `nix::unistd::Group` gives up; `getgrnam`,
//! which Nix calls, has no limit. A group that cannot be read would cost its members their trust.
#![allow(unsafe_code)] // getgrgid_r and getgrnam_r take pointers, and give a list of C strings

use nix::errno::Errno;
use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;

/// What the group database says of a group.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The members that it lists.
    pub members: Vec<String>,
}

/// Space for a group's texts to begin with, and far more than a name service can serve.
const FIRST_SPACE: usize = 16 << 10;
const MOST_SPACE: usize = 256 << 20;

impl Group {
    /// The group with this id, if there is one.
    ///
    /// # Errors
    /// When the name service fails.
    pub fn by_id(id: u32) -> nix::Result<Option<Self>> {
        // SAFETY: `find` passes pointers that are good for this call.
        find(|entry, space, size, result| unsafe { libc::getgrgid_r(id, entry, space, size, result) })
    }

    /// The group with this name, if there is one.
    ///
    /// # Errors
    /// When the name service fails.
    pub fn by_name(name: &str) -> nix::Result<Option<Self>> {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        // SAFETY: `find` passes pointers that are good for this call, and `name` outlives it.
        find(|entry, space, size, result| unsafe {
            libc::getgrnam_r(name.as_ptr(), entry, space, size, result)
        })
    }
}

fn find(
    call: impl Fn(*mut libc::group, *mut c_char, usize, *mut *mut libc::group) -> c_int,
) -> nix::Result<Option<Group>> {
    let mut space: Vec<c_char> = vec![0; FIRST_SPACE];
    loop {
        let mut entry = MaybeUninit::uninit();
        let mut result = std::ptr::null_mut();
        let error = call(entry.as_mut_ptr(), space.as_mut_ptr(), space.len(), &raw mut result);
        match error {
            0 if result.is_null() => return Ok(None),
            // SAFETY: `result` points to `entry`, which has been filled; its texts lie in `space`.
            0 => return Ok(Some(unsafe { read(&*result) })),
            // Some name services say so of a group that does not exist (getgrnam(3), ERRORS).
            libc::ENOENT => return Ok(None),
            libc::ERANGE if space.len() < MOST_SPACE => space = vec![0; space.len() * 4],
            error => return Err(Errno::from_raw(error)),
        }
    }
}

/// # Safety
/// The entry's name and member list are those of a successful look-up.
unsafe fn read(entry: &libc::group) -> Group {
    let mut group = Group { name: String::new(), members: Vec::new() };
    let mut member = entry.gr_mem;
    // SAFETY: the name is a C string, and the list goes on until its null pointer with nothing but C strings before it. Name
    // services are known to leave out either.
    unsafe {
        if !entry.gr_name.is_null() {
            group.name = text(entry.gr_name);
        }
        while !member.is_null() && !(*member).is_null() {
            group.members.push(text(*member));
            member = member.add(1);
        }
    }
    group
}

/// # Safety
/// `text` is a C string.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_group_by_either_way_and_no_other() {
        let root = Group::by_id(0).unwrap().unwrap();
        assert_eq!(root.name, "root");
        assert_eq!(Group::by_name("root").unwrap(), Some(root));
        assert_eq!(Group::by_name("no such group").unwrap(), None);
        assert_eq!(Group::by_name("root\0").unwrap(), None);
    }

    #[test]
    fn space_grows_until_it_is_enough_or_absurd() {
        let sizes = std::cell::RefCell::new(Vec::new());
        let outcome = find(|_, _, size, _| {
            sizes.borrow_mut().push(size);
            libc::ERANGE
        });
        assert_eq!(outcome, Err(Errno::ERANGE));
        assert_eq!((sizes.borrow()[0], *sizes.borrow().last().unwrap()), (FIRST_SPACE, MOST_SPACE));
    }
}
