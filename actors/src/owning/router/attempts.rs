//! What to do after an attempt to reach an owner: a state machine over its answers.

use std::time::Duration;

use backon::ExponentialBackoff;

use crate::backoff::pauses;
use crate::owning::message::Setback;

/// Pause before the second attempt; it doubles, with jitter. An owner that stopped is loaded again within
/// some milliseconds.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
/// Longest pause between attempts.
const PAUSE_LONGEST: Duration = Duration::from_millis(100);

/// How often a request is asked again after nobody knew what became of it. Owners go once in a while; a
/// request whose owner goes each time may well be what makes it go, and is not to take the others down with
/// it.
const UNKNOWNS_MAX: u32 = 3;

/// The attempts of one request so far.
#[derive(Debug)]
pub struct Attempts {
    /// Asking again does no harm, as an owner knows the request by its key.
    repeatable: bool,
    /// How many attempts may have been decided.
    unknowns: u32,
    pauses: Option<ExponentialBackoff>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Give this answer.
    Answer(Result<T, Setback>),
    /// Ask again after a pause.
    AskAgain(Duration),
}

impl Attempts {
    /// Of a request that may be asked again.
    pub fn repeatable() -> Self {
        Self {
            repeatable: true,
            unknowns: 0,
            pauses: None,
        }
    }

    /// Of a request that may be asked again only if it was surely not decided.
    pub fn once() -> Self {
        Self {
            repeatable: false,
            unknowns: 0,
            pauses: None,
        }
    }

    /// Whether some attempt may have been decided.
    pub fn is_uncertain(&self) -> bool {
        self.unknowns > 0
    }

    /// An attempt came back.
    pub fn after<T>(&mut self, answer: Result<T, Setback>) -> Step<T> {
        match answer {
            Ok(outcome) => Step::Answer(Ok(outcome)),
            Err(Setback::Moved) => Step::AskAgain(self.next_pause()),
            Err(Setback::Unknown) if self.repeatable && self.unknowns < UNKNOWNS_MAX => {
                self.unknowns += 1;
                Step::AskAgain(self.next_pause())
            }
            Err(Setback::Unknown) => Step::Answer(Err(Setback::Unknown)),
            // These say only that nothing was decided *this* time.
            Err(Setback::Overloaded | Setback::StoreUnavailable) if self.is_uncertain() => {
                Step::AskAgain(self.next_pause())
            }
            Err(Setback::Expired) if self.is_uncertain() => Step::Answer(Err(Setback::Unknown)),
            Err(setback @ (Setback::Overloaded | Setback::StoreUnavailable | Setback::Expired)) => {
                Step::Answer(Err(setback))
            }
        }
    }

    /// The answer when no time is left for another attempt.
    pub fn out_of_time(&self) -> Setback {
        if self.is_uncertain() {
            Setback::Unknown
        } else {
            Setback::Moved
        }
    }

    /// The answer when there is no place to wait for another attempt.
    pub fn turned_away(&self) -> Setback {
        if self.is_uncertain() {
            Setback::Unknown
        } else {
            Setback::Overloaded
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pauses = self
            .pauses
            .get_or_insert_with(|| pauses(PAUSE_FIRST, PAUSE_LONGEST));
        pauses.next().unwrap_or(PAUSE_LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(step: Step<()>) -> Option<Result<(), Setback>> {
        match step {
            Step::Answer(answer) => Some(answer),
            Step::AskAgain(_) => None,
        }
    }

    #[test]
    fn what_was_surely_not_decided_is_asked_again_and_stays_certain() {
        let mut attempts = Attempts::repeatable();
        assert_eq!(answer(attempts.after(Err(Setback::Moved))), None);
        assert_eq!(
            (attempts.out_of_time(), attempts.turned_away()),
            (Setback::Moved, Setback::Overloaded)
        );
        assert_eq!(
            answer(attempts.after(Err(Setback::Overloaded))),
            Some(Err(Setback::Overloaded))
        );
    }

    #[test]
    fn after_an_unknown_attempt_only_a_decision_settles_it() {
        let mut attempts = Attempts::repeatable();
        for setback in [
            Setback::Unknown,
            Setback::Overloaded,
            Setback::StoreUnavailable,
            Setback::Moved,
        ] {
            assert_eq!(answer(attempts.after(Err(setback))), None);
            assert_eq!(
                (attempts.out_of_time(), attempts.turned_away()),
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
    fn a_request_that_nobody_ever_answers_is_not_asked_for_ever() {
        let mut attempts = Attempts::repeatable();
        let asked_again = std::iter::from_fn(|| match attempts.after::<()>(Err(Setback::Unknown)) {
            Step::AskAgain(_) => Some(()),
            Step::Answer(answer) => {
                assert_eq!(answer, Err(Setback::Unknown));
                None
            }
        });
        assert_eq!(asked_again.count(), UNKNOWNS_MAX as usize);
    }

    #[test]
    fn a_change_that_may_have_been_made_is_not_asked_for_again() {
        let mut attempts = Attempts::once();
        assert_eq!(answer(attempts.after(Err(Setback::Moved))), None);
        assert_eq!(
            answer(attempts.after(Err(Setback::Unknown))),
            Some(Err(Setback::Unknown))
        );
    }
}
