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

/// When connections begin, and how long they pause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualUsers {
    /// The ramp; all begin at once if it is empty. A user beyond the last stage never begins.
    pub ramp: Vec<Stage>,
    /// Least and most time between an answer and the next request, which is drawn at random.
    pub thinking: (Duration, Duration),
}

impl VirtualUsers {
    /// Returns how long after the beginning of the run the virtual user at this index begins.
    pub fn begins(&self, place: usize) -> Option<Duration> {
        if self.ramp.is_empty() {
            return Some(Duration::ZERO);
        }
        let (mut passed, mut users) = (Duration::ZERO, 0);
        for stage in &self.ramp {
            if (users..stage.users).contains(&place) {
                let part = (place - users) as f64 / (stage.users - users) as f64;
                return Some(passed + stage.duration.mul_f64(part));
            }
            passed += stage.duration;
            users = users.max(stage.users);
        }
        None
    }

    /// Returns the time of the ramp.
    pub fn duration(&self) -> Duration {
        self.ramp.iter().map(|stage| stage.duration).sum()
    }

    /// Returns the time to think before the next request.
    pub(super) fn thinks(&self) -> Duration {
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
        let begins = |place| users.begins(place);
        assert_eq!((begins(0), begins(50)), (Some(Duration::ZERO), Some(seconds(5))));
        assert_eq!((begins(100), begins(200)), (Some(seconds(30)), Some(seconds(40))));
        assert_eq!((begins(300), users.duration()), (None, seconds(50)));
        let all = VirtualUsers::default();
        assert_eq!(
            (all.begins(7), all.thinks()),
            (Some(Duration::ZERO), Duration::ZERO)
        );
        for _ in 0..100 {
            assert!((seconds(1)..=seconds(2)).contains(&users.thinks()));
        }
    }
}
