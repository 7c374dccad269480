//! The connections that are open now, by the process that serves each, and how many there may be.

use std::collections::BTreeMap;

/// How many connections there may be at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of all users together; above 0.
    pub total: usize,
    /// Of one user; above 0. With less than `total`, nobody can take all of them.
    pub per_user: usize,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// That of all users together, which is this.
    Total(usize),
    /// That of this user, which is this.
    User(usize),
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Total(most) => write!(f, "there are too many connections, at most {most} are allowed"),
            Self::User(most) => write!(f, "the user has too many connections, at most {most} are allowed"),
        }
    }
}

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    limits: Limits,
    users: BTreeMap<i32, u32>,
    counts: BTreeMap<u32, usize>,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, users: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// May this user have one more?
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(&self, uid: u32) -> Result<(), Full> {
        // The user's own limit first: it is what the user can do something about.
        if self.counts.get(&uid).is_some_and(|count| *count >= self.limits.per_user) {
            Err(Full::User(self.limits.per_user))
        } else if self.users.len() >= self.limits.total {
            Err(Full::Total(self.limits.total))
        } else {
            Ok(())
        }
    }

    /// A connection of this user is served by this process from now on.
    pub fn add(&mut self, pid: i32, uid: u32) {
        self.users.insert(pid, uid);
        *self.counts.entry(uid).or_default() += 1;
    }

    /// A process is gone: the user whose connection it served; nothing when it served none.
    pub fn remove(&mut self, pid: i32) -> Option<u32> {
        let uid = self.users.remove(&pid)?;
        match self.counts.get_mut(&uid) {
            Some(count) if *count > 1 => *count -= 1,
            // Users without a connection take no memory.
            _ => drop(self.counts.remove(&uid)),
        }
        Some(uid)
    }

    /// Does this process serve a connection?
    #[must_use]
    pub fn contains(&self, pid: i32) -> bool {
        self.users.contains_key(&pid)
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The processes that serve connections.
    pub fn processes(&self) -> impl Iterator<Item = i32> {
        self.users.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_what_is_open_now() {
        let mut open = Connections::new(Limits { total: 4, per_user: 2 });
        assert_eq!(open.admit(1000), Ok(()));
        open.add(11, 1000);
        open.add(12, 1000);
        assert_eq!(open.admit(1000), Err(Full::User(2)));
        assert_eq!(open.admit(1001), Ok(()), "another user");
        open.add(13, 1001);
        open.add(14, 1002);
        assert_eq!(open.admit(1003), Err(Full::Total(4)));
        assert_eq!(open.admit(1000), Err(Full::User(2)), "its own limit is the one it can mend");
        assert_eq!(open.remove(11), Some(1000));
        assert_eq!(open.remove(11), None, "once");
        assert_eq!(open.remove(99), None, "served none");
        assert_eq!(open.admit(1000), Ok(()));
        for pid in [12, 13, 14] {
            assert!(open.contains(pid) && open.remove(pid).is_some() && !open.contains(pid));
        }
        assert!(open.users.is_empty() && open.counts.is_empty(), "nothing is kept: {open:?}");
    }
}
