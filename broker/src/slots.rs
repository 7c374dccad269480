//! Which build uids are free.

use crate::args::Uids;

/// The uids in use, each with the process that looks after its build. A uid is not used again before all others were, so that one which
/// cannot be cleared does not stand in everybody's way.
#[derive(Debug)]
pub struct Slots<W> {
    uids: Uids,
    taken: Vec<(u32, W)>,
    next: u32,
}

impl<W> Slots<W> {
    /// All are free.
    #[must_use]
    pub fn new(uids: Uids) -> Self {
        Self { uids, taken: Vec::new(), next: 0 }
    }

    /// A free one, if there is any.
    #[must_use]
    pub fn free(&self) -> Option<u32> {
        (0..self.uids.count)
            .map(|offset| self.uids.start + (self.next + offset) % self.uids.count)
            .find(|uid| self.taken.iter().all(|(taken, _)| taken != uid))
    }

    /// Takes one that is free.
    pub fn take(&mut self, uid: u32, worker: W) {
        self.next = (uid - self.uids.start + 1) % self.uids.count;
        self.taken.push((uid, worker));
    }

    /// Frees those whose worker is `gone`.
    pub fn retain(&mut self, mut gone: impl FnMut(u32, &mut W) -> bool) {
        self.taken.retain_mut(|(uid, worker)| !gone(*uid, worker));
    }

    /// The workers.
    pub fn workers(&self) -> impl Iterator<Item = &W> {
        self.taken.iter().map(|(_, worker)| worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_in_its_turn() {
        let mut slots = Slots::new(Uids { start: 10, count: 3 });
        let mut taken = Vec::new();
        while let Some(uid) = slots.free() {
            slots.take(uid, uid);
            taken.push(uid);
        }
        assert_eq!(taken, [10, 11, 12]);
        slots.retain(|uid, _| uid == 11);
        assert_eq!(slots.free(), Some(11));
        slots.take(11, 11);
        assert_eq!((slots.free(), slots.workers().count()), (None, 3));
        slots.retain(|_, _| true);
        assert_eq!(slots.free(), Some(12), "not the one that was used last");
    }
}
