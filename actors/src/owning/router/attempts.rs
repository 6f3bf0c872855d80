//! What to do after an attempt to reach an owner: a state machine over the answers.

use std::time::Duration;

use backon::ExponentialBackoff;

use crate::backoff::backoff;
use crate::owning::request::Setback;

/// Pause before the second attempt. It doubles for each further attempt, with jitter. An owner that stopped
/// is loaded again within some milliseconds.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
/// Longest pause between attempts.
const PAUSE_LONGEST: Duration = Duration::from_millis(100);

/// Maximum number of retries after an unknown outcome. Owners stop once in a while. But if the owner stops at
/// every attempt of a request, the request may be the cause, and must not stop its owner again and again.
const UNKNOWNS_MAX: u32 = 3;

/// The attempts of one request so far.
#[derive(Debug)]
pub struct Attempts {
    /// True if a retry does no harm, because an owner recognises the request by its key.
    repeatable: bool,
    /// Number of attempts so far whose outcome is unknown: each of them may have led to a decision.
    unknowns: u32,
    backoff: Option<ExponentialBackoff>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Give this answer.
    Answer(Result<T, Setback>),
    /// Try again after a pause.
    TryAgain(Duration),
}

impl Attempts {
    /// Begins the attempts of a request that may be sent again.
    pub fn repeatable() -> Self {
        Self {
            repeatable: true,
            unknowns: 0,
            backoff: None,
        }
    }

    /// Begins the attempts of a request that may be sent again only if it certainly was not decided.
    pub fn once() -> Self {
        Self {
            repeatable: false,
            unknowns: 0,
            backoff: None,
        }
    }

    /// Returns true if an attempt may have been decided.
    pub fn is_uncertain(&self) -> bool {
        self.unknowns > 0
    }

    /// Returns what to do after the answer to an attempt.
    pub fn after<T>(&mut self, answer: Result<T, Setback>) -> Step<T> {
        match answer {
            Ok(outcome) => Step::Answer(Ok(outcome)),
            Err(Setback::Moved) => Step::TryAgain(self.next_pause()),
            Err(Setback::Unknown) if self.repeatable && self.unknowns < UNKNOWNS_MAX => {
                self.unknowns += 1;
                Step::TryAgain(self.next_pause())
            }
            Err(Setback::Unknown) => Step::Answer(Err(Setback::Unknown)),
            // These setbacks say only that nothing was decided in *this* attempt.
            Err(Setback::Overloaded | Setback::StoreUnavailable) if self.is_uncertain() => {
                Step::TryAgain(self.next_pause())
            }
            Err(Setback::Expired) if self.is_uncertain() => Step::Answer(Err(Setback::Unknown)),
            Err(setback @ (Setback::Overloaded | Setback::StoreUnavailable | Setback::Expired)) => {
                Step::Answer(Err(setback))
            }
        }
    }

    /// Returns the answer when no time is left for another attempt.
    pub fn out_of_time(&self) -> Setback {
        if self.is_uncertain() {
            Setback::Unknown
        } else {
            Setback::Moved
        }
    }

    /// Returns the answer when there is no place to wait for another attempt.
    pub fn overloaded(&self) -> Setback {
        if self.is_uncertain() {
            Setback::Unknown
        } else {
            Setback::Overloaded
        }
    }

    fn next_pause(&mut self) -> Duration {
        let backoff = self
            .backoff
            .get_or_insert_with(|| backoff(PAUSE_FIRST, PAUSE_LONGEST));
        backoff.next().unwrap_or(PAUSE_LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(step: Step<()>) -> Option<Result<(), Setback>> {
        match step {
            Step::Answer(answer) => Some(answer),
            Step::TryAgain(_) => None,
        }
    }

    #[test]
    fn a_request_that_was_not_decided_is_sent_again_and_stays_certain() {
        let mut attempts = Attempts::repeatable();
        assert_eq!(answer(attempts.after(Err(Setback::Moved))), None);
        assert_eq!(
            (attempts.out_of_time(), attempts.overloaded()),
            (Setback::Moved, Setback::Overloaded)
        );
        assert_eq!(
            answer(attempts.after(Err(Setback::Overloaded))),
            Some(Err(Setback::Overloaded))
        );
    }

    #[test]
    fn after_an_unknown_attempt_only_a_decision_settles_the_request() {
        let mut attempts = Attempts::repeatable();
        for setback in [
            Setback::Unknown,
            Setback::Overloaded,
            Setback::StoreUnavailable,
            Setback::Moved,
        ] {
            assert_eq!(answer(attempts.after(Err(setback))), None);
            assert_eq!(
                (attempts.out_of_time(), attempts.overloaded()),
                (Setback::Unknown, Setback::Unknown)
            );
        }
        assert_eq!(
            answer(attempts.after(Err(Setback::Expired))),
            Some(Err(Setback::Unknown))
        );
        assert_eq!(answer(attempts.after(Ok(()))), Some(Ok(())));
    }

    #[test]
    fn a_request_that_stays_unknown_is_not_sent_for_ever() {
        let mut attempts = Attempts::repeatable();
        let sent_again = std::iter::from_fn(|| match attempts.after::<()>(Err(Setback::Unknown)) {
            Step::TryAgain(_) => Some(()),
            Step::Answer(answer) => {
                assert_eq!(answer, Err(Setback::Unknown));
                None
            }
        });
        assert_eq!(sent_again.count(), UNKNOWNS_MAX as usize);
    }

    #[test]
    fn a_change_that_may_have_been_made_is_not_sent_again() {
        let mut attempts = Attempts::once();
        assert_eq!(answer(attempts.after(Err(Setback::Moved))), None);
        assert_eq!(
            answer(attempts.after(Err(Setback::Unknown))),
            Some(Err(Setback::Unknown))
        );
    }
}
