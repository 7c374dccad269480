//! What libproc's records say (macOS, `sys/proc_info.h`), read by offset from the bytes that the kernel gave. Paths in them are found as store paths are
//! found in any text, wherever in the record they stand: that finds too much rather than too little.

/// Size of `struct proc_fdinfo`: a descriptor, its type.
pub const FD: usize = 8;
/// Size of `struct proc_regioninfo`, which `struct proc_regionwithpathinfo` begins with.
pub const REGION: usize = 96;
/// Where its `pri_address` and `pri_size` stand.
const ADDRESS: usize = 80;
const SIZE: usize = 88;
/// `PROX_FDTYPE_VNODE`: a file, as opposed to a socket, a pipe and so on.
const VNODE: u32 = 1;

/// The descriptors that are files, of a list of `struct proc_fdinfo`. A record that is cut off is none.
pub fn files(list: &[u8]) -> impl Iterator<Item = i32> {
    list.chunks_exact(FD).filter_map(|record| {
        let number = |at: usize| record[at..at + 4].try_into().map(u32::from_ne_bytes).ok();
        (number(4)? == VNODE).then(|| number(0).map(u32::cast_signed))?
    })
}

/// Where the region behind this one begins at the earliest; nothing when there can be none, so that who asks for one after the other comes to an
/// end whatever the kernel says.
pub fn behind(region: &[u8], asked: u64) -> Option<u64> {
    let region = region.get(..REGION)?;
    let number = |at: usize| region[at..at + 8].try_into().map(u64::from_ne_bytes).ok();
    let end = number(ADDRESS)?.checked_add(number(SIZE)?)?;
    (end > asked).then_some(end)
}

/// Process numbers of a list of them, without 0, the kernel itself, which has no files.
pub fn pids(list: &[u8]) -> impl Iterator<Item = i32> {
    list.chunks_exact(4)
        .filter_map(|record| record.try_into().map(i32::from_ne_bytes).ok())
        .filter(|pid| *pid > 0)
}

/// For `crate::fuzz`: reading comes to an end, and forward.
#[cfg(any(test, fuzzing))]
pub fn check(text: &[u8]) {
    assert!(files(text).count() <= text.len() / FD);
    assert!(pids(text).all(|pid| pid > 0));
    for asked in [0, 1 << 32, u64::MAX] {
        assert!(behind(text, asked).is_none_or(|next| next > asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors() {
        let list: Vec<u8> =
            [3_u32, 1, 4, 2, 5, 1].into_iter().flat_map(u32::to_ne_bytes).chain([6, 0, 0]).collect();
        assert_eq!(files(&list).collect::<Vec<_>>(), [3, 5]);
    }

    #[test]
    fn regions_end() {
        let mut region = vec![0; REGION + 10];
        region[ADDRESS..ADDRESS + 8].copy_from_slice(&0x1000_u64.to_ne_bytes());
        region[SIZE..SIZE + 8].copy_from_slice(&0x4000_u64.to_ne_bytes());
        for (asked, next) in [(0, Some(0x5000)), (0x4fff, Some(0x5000)), (0x5000, None), (u64::MAX, None)] {
            assert_eq!(behind(&region, asked), next, "{asked:x}");
        }
        region[SIZE..SIZE + 8].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert_eq!(behind(&region, 0), None, "it goes round");
        assert_eq!(behind(&region[..REGION - 1], 0), None, "it is cut off");
    }

    #[test]
    fn processes() {
        let list: Vec<u8> = [0, 1, -1, 77].into_iter().flat_map(i32::to_ne_bytes).chain([1, 2]).collect();
        assert_eq!(pids(&list).collect::<Vec<_>>(), [1, 77]);
    }
}
