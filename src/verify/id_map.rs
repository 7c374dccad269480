//! Maps of ids between user namespaces (user_namespaces(7)).

use std::str::FromStr;

/// A `/proc/PID/uid_map` or `gid_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdMap(Vec<(u32, u32, u32)>);

impl IdMap {
    /// The id outside the namespace for `inside`, as the reader of the file sees it.
    pub(super) fn outside(&self, inside: u32) -> Option<u32> {
        self.0.iter().find_map(|&(first, outside, count)| {
            let offset = inside.checked_sub(first)?;
            (offset < count).then(|| outside.checked_add(offset))?
        })
    }
}

impl FromStr for IdMap {
    type Err = String;

    /// Lines, or parts between `;`, of three numbers: first inside, first outside, count.
    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.split(['\n', ';']).filter(|line| !line.trim().is_empty());
        let line = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None) => Ok((inside, outside, count)),
                _ => Err(format!("{line:?} is no line of an id map")),
            }
        };
        lines.map(line).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_ids_outwards_through_both_namespaces() {
        let daemon: IdMap =
            "         0        999          1\n 872415232  872415232    8388608\n".parse().unwrap();
        let build: IdMap = "1000 872415232 1".parse().unwrap();
        let rows = [(1000, Some(872_415_232)), (0, None), (1001, None)];
        for (inside, expected) in rows {
            assert_eq!(build.outside(inside).and_then(|id| daemon.outside(id)), expected, "{inside}");
        }
        assert_eq!(daemon.outside(0), Some(999));
        assert_eq!("0 0 4294967295".parse::<IdMap>().unwrap().outside(30001), Some(30001));
        assert_eq!("5 4294967295 9".parse::<IdMap>().unwrap().outside(6), None, "no id past 32 bits");
    }

    #[test]
    fn refuses_what_is_no_map() {
        for text in ["1 2", "1 2 3 4", "a b c", "-1 2 3", "1 2 99999999999"] {
            assert!(text.parse::<IdMap>().is_err(), "{text}");
        }
    }
}
