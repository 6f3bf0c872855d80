//! Takes random steps with two ends and their network, and checks that every request has one answer.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// One step of the model.
#[derive(Debug, Clone)]
enum Move {
    Send(u64),
    Flush,
    /// The network carries the oldest frame.
    Carry,
    /// The peer answers the oldest request that it has, or answers it twice.
    Answer {
        again: bool,
    },
    CarryBack,
    Wait(u64),
    Lose,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (1..4_u64).prop_map(Move::Send),
        4 => Just(Move::Flush),
        4 => Just(Move::Carry),
        4 => any::<bool>().prop_map(|again| Move::Answer { again }),
        4 => Just(Move::CarryBack),
        2 => (1..600_u64).prop_map(Move::Wait),
        1 => Just(Move::Lose),
    ];
    proptest::collection::vec(one, 1..120)
}

/// Returns what the peer answers to the request of this number.
fn answer_to(number: u64) -> u64 {
    number + 1_000
}

proptest! {
    /// In the end, every request has exactly one answer. The answer *not sent* means that the peer never
    /// received the request.
    #[test]
    fn every_request_has_one_answer(moves in moves()) {
        let (mut dialler, mut acceptor) = linked();
        let (mut there, mut back, mut held) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (mut asked, mut seen, mut now) = (Vec::new(), Vec::new(), 10_u64);
        for step in moves {
            let (mut at_dialler, mut at_acceptor) = (Effects::new(), Effects::new());
            match step {
                Move::Send(flow) => {
                    let key = asked.len() as u64;
                    let (request, receiver) = request(flow, key, at(now + 3_000));
                    dialler.send(request, place(), &mut at_dialler);
                    asked.push((key, receiver));
                }
                Move::Flush => dialler.flush(at(now), &mut at_dialler),
                Move::Carry => {
                    if let Some(frame) = there.pop_front() {
                        acceptor.arrived(at(now), frame, &mut at_acceptor);
                    }
                }
                Move::Answer { again } => {
                    if let Some((id, key)) = held.pop_front() {
                        for _ in 0..=usize::from(again) {
                            acceptor.answer(id, answer_to(key));
                        }
                        acceptor.flush(at(now), &mut at_acceptor);
                    }
                }
                Move::CarryBack => {
                    if let Some(frame) = back.pop_front() {
                        dialler.arrived(at(now), frame, &mut at_dialler);
                    }
                }
                Move::Wait(millis) => {
                    now += millis;
                    dialler.tick(at(now), &mut at_dialler);
                    there.extend(drain(at(now), &mut dialler, &mut at_dialler));
                }
                Move::Lose => dialler.reset(Reason::Lost, &mut at_dialler),
            }
            there.extend(sent(&mut at_dialler));
            reply(at_dialler);
            back.extend(sent(&mut at_acceptor));
            for effect in at_acceptor {
                if let Effect::Handle(RemoteRequest { id, ask, .. }, _) = effect {
                    seen.push(ask.number);
                    held.push_back((id, ask.number));
                }
            }
        }
        let mut effects = Effects::new();
        dialler.reset(Reason::Lost, &mut effects);
        reply(effects);
        prop_assert_eq!(dialler.in_flight(), 0);
        prop_assert!(dialler.window.flows() == 0 || !dialler.is_up());
        for (key, mut receiver) in asked {
            match receiver.try_recv() {
                Ok(Err(Undelivered::NotSent | Undelivered::NoRoom | Undelivered::Expired)) => {
                    prop_assert!(!seen.contains(&key));
                }
                Ok(Err(Undelivered::Unanswered)) => {}
                Ok(answered) => {
                    prop_assert_eq!(answered, Ok(answer_to(key)));
                    prop_assert!(seen.contains(&key));
                }
                Err(nothing) => prop_assert!(false, "request {key}: {nothing}"),
            }
        }
    }
}
