//! Which machine a report is about, and when it was made.

use std::time::{SystemTime, UNIX_EPOCH};

/// The head of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The machine's name; empty when the kernel does not say.
    pub host: String,
    /// `2026-11-21 16:05 UTC`
    pub time: String,
}

impl About {
    /// This machine, now.
    pub fn now() -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self { host, time: utc(seconds) }
    }
}

/// Seconds since 1970 as a date and time. Counted from 1 March of the year 0, leap days come at the end of a year, and every
/// 400 years are alike (146,097 days).
fn utc(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_are_those_of_date_1() {
        // From date -u -d @N.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
