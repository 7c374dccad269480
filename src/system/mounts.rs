//! The kernel's tables of mounts (proc_pid_mountinfo(5)).

use std::path::PathBuf;

/// The mount points of such a table, one for each line.
pub fn points(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)))
}

/// Undoes the kernel's octal escapes for space, tab, newline and backslash.
pub fn unescape(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table =
            "22 1 8:1 / / rw shared:1 - ext4 /dev/sda rw\n30 22 0:5 / /mnt/a\\040b rw - tmpfs none rw\n";
        let points: Vec<_> = points(table).collect();
        assert_eq!(points, [PathBuf::from("/"), PathBuf::from("/mnt/a b")]);
    }
}
