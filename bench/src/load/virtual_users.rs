//! The virtual users behind the connections of a closed loop: a ramp, and the time to think between two
//! requests. Each connection is one virtual user.

use std::time::Duration;

/// A part of a ramp. The number of virtual users grows evenly up to this one; it never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// How long the part takes.
    pub duration: Duration,
    /// The number of virtual users at its end.
    pub users: usize,
}

/// When virtual users start, and how long they pause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualUsers {
    /// The ramp; if it is empty, all start at once. A user beyond the last stage never starts.
    pub ramp: Vec<Stage>,
    /// Least and most time between an answer and the next request. The time is drawn at random.
    pub thinking: (Duration, Duration),
}

impl VirtualUsers {
    /// Returns the time from the start of the run to the first request of the virtual user at this index;
    /// `None` if this user sends nothing.
    pub fn start_delay(&self, index: usize) -> Option<Duration> {
        if self.ramp.is_empty() {
            return Some(Duration::ZERO);
        }
        let (mut passed, mut users) = (Duration::ZERO, 0);
        for stage in &self.ramp {
            if (users..stage.users).contains(&index) {
                let part = (index - users) as f64 / (stage.users - users) as f64;
                return Some(passed + stage.duration.mul_f64(part));
            }
            passed += stage.duration;
            users = users.max(stage.users);
        }
        None
    }

    /// Returns the duration of the ramp.
    pub fn duration(&self) -> Duration {
        self.ramp.iter().map(|stage| stage.duration).sum()
    }

    /// Draws the time between an answer and the next request.
    pub(super) fn thinking_time(&self) -> Duration {
        let (least, most) = self.thinking;
        if most.is_zero() {
            return Duration::ZERO;
        }
        least + most.saturating_sub(least).mul_f64(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_begin_evenly_within_their_stage() {
        let seconds = Duration::from_secs;
        let stage = |duration, users| Stage {
            duration: seconds(duration),
            users,
        };
        let users = VirtualUsers {
            ramp: vec![stage(10, 100), stage(20, 100), stage(20, 300)],
            thinking: (seconds(1), seconds(2)),
        };
        let delay = |index| users.start_delay(index);
        assert_eq!((delay(0), delay(50)), (Some(Duration::ZERO), Some(seconds(5))));
        assert_eq!((delay(100), delay(200)), (Some(seconds(30)), Some(seconds(40))));
        assert_eq!((delay(300), users.duration()), (None, seconds(50)));
        let all = VirtualUsers::default();
        assert_eq!(
            (all.start_delay(7), all.thinking_time()),
            (Some(Duration::ZERO), Duration::ZERO)
        );
        for _ in 0..100 {
            assert!((seconds(1)..=seconds(2)).contains(&users.thinking_time()));
        }
    }
}
