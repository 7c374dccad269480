//! Looking again and again: soon at first, as most things end soon, and at longer and longer intervals.

use std::thread::sleep;
use std::time::Duration;

/// The time until the next look.
#[derive(Debug)]
pub struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    /// Begins with a pause that nobody notices; each is twice as long as the one before, and none longer than `longest`.
    pub fn up_to(longest: Duration) -> Self {
        Self { next: Duration::from_millis(2), longest }
    }

    /// Waits.
    pub fn wait(&mut self) {
        sleep(self.advance());
    }

    fn advance(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause * 2;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let mut pause = Pause::up_to(Duration::from_millis(7));
        let pauses: Vec<_> = (0..5).map(|_| pause.advance().as_millis()).collect();
        assert_eq!(pauses, [2, 4, 7, 7, 7]);
    }
}
