//! Two ends of a link and a network between them that loses, repeats and delays, step by step.

use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::ids::{Incarnation, NodeId, RequestKey, UserId};
use crate::owning::admission::Admission;
use crate::owning::message::{IssueOutcome, IssueRequest, Refusal};

const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENT_AFTER: Duration = Duration::from_secs(4);

fn at(millis: u64) -> Moment {
    Moment::at(Duration::from_millis(millis))
}

fn hello(incarnation: u64) -> Hello {
    Hello::new(
        "test",
        NodeId::parse("node").unwrap(),
        Incarnation::new(incarnation).unwrap(),
    )
}

fn terms(role: Role, hello: Hello, peer: u64) -> Terms {
    let peer = Incarnation::new(peer).unwrap();
    Terms {
        role,
        hello,
        peer,
        heartbeat: HEARTBEAT,
        silent_after: SILENT_AFTER,
        coupon_places: 3,
    }
}

/// The dialler is incarnation 1, the acceptor 2.
fn ends(generation: u64) -> (Link, Link) {
    let dialler = Link::new(terms(Role::Dialler { generation }, hello(1), 2));
    (
        dialler,
        Link::new(terms(Role::Acceptor { above: 0 }, hello(2), 1)),
    )
}

fn sent(effects: &mut Effects) -> Vec<Frame> {
    let frames = effects.extract_if(.., |effect| matches!(effect, Effect::Send { .. }));
    frames
        .map(|effect| match effect {
            Effect::Send { bytes, .. } => Frame::read(bytes).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Carries everything to and fro until nothing is left to carry, answering heartbeats.
fn settle(now: Moment, one: &mut Link, other: &mut Link) -> (Effects, Effects) {
    let (mut at_one, mut at_other) = (Effects::new(), Effects::new());
    one.tick(now, &mut at_one);
    other.tick(now, &mut at_other);
    loop {
        let (from_one, from_other) = (drain(now, one, &mut at_one), drain(now, other, &mut at_other));
        if from_one.is_empty() && from_other.is_empty() {
            return (at_one, at_other);
        }
        from_one
            .into_iter()
            .for_each(|frame| other.arrived(now, frame, &mut at_other));
        from_other
            .into_iter()
            .for_each(|frame| one.arrived(now, frame, &mut at_one));
    }
}

/// What a shell does with heartbeats, and the frames that leave.
fn drain(now: Moment, link: &mut Link, effects: &mut Effects) -> Vec<Frame> {
    for effect in effects
        .extract_if(.., |effect| {
            matches!(effect, Effect::BeatDue | Effect::HeartbeatAsked(_))
        })
        .collect::<Vec<_>>()
    {
        match effect {
            Effect::HeartbeatAsked(notice) => link.answer_heartbeat(notice.id, notice.content),
            _ => link.beat(now, b"beat".to_vec()),
        }
    }
    link.flush(now, effects);
    sent(effects)
}

fn linked() -> (Link, Link) {
    let (mut dialler, mut acceptor) = ends(1);
    settle(at(0), &mut dialler, &mut acceptor);
    assert!(dialler.is_up() && acceptor.is_up());
    (dialler, acceptor)
}

fn coupon(number: u64) -> CouponId {
    CouponId::new(number).unwrap()
}

fn request(expires: Moment) -> (Request, Receiver<IssueAnswer>) {
    let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
    let (user, key) = (UserId::parse("alice").unwrap(), RequestKey::parse("key").unwrap());
    (Request::Issue(IssueRequest { user, key, expires }, reply), answer)
}

/// Carries out the answers among effects.
fn answer(effects: Effects) -> Effects {
    let mut others = Effects::new();
    for effect in effects {
        match effect {
            Effect::Issue(reply, answer) => reply.send(answer),
            Effect::SetBack(request, setback) => request.set_back(setback),
            Effect::Full(request) => request.set_back(Setback::Overloaded),
            other => others.push(other),
        }
    }
    others
}

fn ask(link: &mut Link, coupon_number: u64, expires: Moment) -> Receiver<IssueAnswer> {
    let (request, receiver) = request(expires);
    let mut effects = Effects::new();
    link.ask(coupon(coupon_number), Epoch::new(5), request, &mut effects);
    answer(effects);
    receiver
}

fn sold_out() -> IssueAnswer {
    Ok(IssueOutcome::Refused(Refusal::SoldOut { total_quantity: 1 }))
}

#[test]
fn both_ends_are_up_after_hello_and_the_first_frame() {
    let (mut dialler, mut acceptor) = ends(7);
    let (mut at_dialler, mut at_acceptor) = (Effects::new(), Effects::new());
    dialler.tick(at(0), &mut at_dialler);
    let [hello] = sent(&mut at_dialler).try_into().unwrap();
    acceptor.arrived(at(1), hello.clone(), &mut at_acceptor);
    assert_eq!(acceptor.generation(), 7);
    assert!(!acceptor.is_up(), "it does not know whether its hello arrives");
    // Said again, as its answer is late.
    acceptor.arrived(at(2), hello, &mut at_acceptor);
    let answers = sent(&mut at_acceptor);
    assert_eq!(answers.len(), 2, "the first may have come too early");
    for answer in answers {
        dialler.arrived(at(3), answer, &mut at_dialler);
    }
    assert!(dialler.is_up());
    for frame in drain(at(3), &mut dialler, &mut at_dialler) {
        acceptor.arrived(at(4), frame, &mut at_acceptor);
    }
    assert!(acceptor.is_up());
    assert!(at_acceptor.iter().any(|effect| matches!(effect, Effect::Up)));
}

#[test]
fn hello_is_said_until_it_is_answered_and_not_too_often() {
    let (mut dialler, _) = ends(1);
    let mut hellos = 0;
    for millis in 0..1_000 {
        let mut effects = Effects::new();
        dialler.tick(at(millis), &mut effects);
        hellos += sent(&mut effects).len();
    }
    assert_eq!(hellos, 40);
}

#[test]
fn what_does_not_fit_is_refused_and_both_know_why() {
    let mut dialler = Link::new(terms(Role::Dialler { generation: 1 }, hello(1), 2));
    let theirs = Hello {
        shards: 128,
        ..hello(2)
    };
    let mut acceptor = Link::new(terms(Role::Acceptor { above: 0 }, theirs, 1));
    let (at_dialler, mut at_acceptor) = settle(at(0), &mut dialler, &mut acceptor);
    assert!(
        matches!(at_dialler.as_slice(), [Effect::Reset(Reason::Refused(why))] if why.contains("256 shards"))
    );
    // It leaves the peer time to read why; that the peer goes then is not the reason.
    let mut left = Link::new(terms(
        Role::Acceptor { above: 0 },
        Hello {
            shards: 128,
            ..hello(2)
        },
        1,
    ));
    settle(
        at(0),
        &mut Link::new(terms(Role::Dialler { generation: 1 }, hello(1), 2)),
        &mut left,
    );
    let mut at_left = Effects::new();
    left.reset(Reason::Lost, &mut at_left);
    assert!(matches!(at_left.as_slice(), [Effect::Reset(Reason::Mismatch(_))]));
    acceptor.tick(at(400), &mut at_acceptor);
    assert!(at_acceptor.is_empty());
    acceptor.tick(at(600), &mut at_acceptor);
    assert!(matches!(
        at_acceptor.as_slice(),
        [Effect::Reset(Reason::Mismatch(Mismatch::Shards { .. }))]
    ));
}

#[test]
fn a_hello_of_an_older_generation_makes_no_link() {
    let (mut dialler, _) = ends(4);
    let mut acceptor = Link::new(terms(Role::Acceptor { above: 4 }, hello(2), 1));
    let (_, at_acceptor) = settle(at(0), &mut dialler, &mut acceptor);
    assert!(matches!(at_acceptor.as_slice(), [Effect::Dropped("generation")]));
    assert!(!dialler.is_up() && !acceptor.is_up());
}

#[test]
fn frames_of_others_and_of_older_links_are_dropped() {
    let (mut dialler, mut acceptor) = linked();
    let header = Header {
        version: 1,
        from: acceptor.terms.hello.incarnation,
        to: dialler.terms.hello.incarnation,
        generation: 1,
        number: 9,
    };
    let strangers = [
        (
            Header {
                from: Incarnation::new(9).unwrap(),
                ..header
            },
            "stranger",
        ),
        (
            Header {
                to: Incarnation::new(9).unwrap(),
                ..header
            },
            "stranger",
        ),
        (
            Header {
                generation: 0,
                ..header
            },
            "generation",
        ),
        (
            Header {
                generation: 2,
                ..header
            },
            "generation",
        ),
        (Header { number: 0, ..header }, "out_of_place"),
    ];
    for (header, reason) in strangers {
        let mut effects = Effects::new();
        dialler.arrived(
            at(1),
            Frame {
                header,
                items: Vec::new(),
            },
            &mut effects,
        );
        assert!(
            matches!(effects.as_slice(), [Effect::Dropped(why)] if *why == reason),
            "{effects:?}"
        );
    }
    let (at_dialler, _) = settle(at(2), &mut dialler, &mut acceptor);
    assert!(dialler.is_up() && !at_dialler.iter().any(|effect| matches!(effect, Effect::Reset(_))));
}

#[test]
fn a_missing_frame_resets_the_link() {
    let (mut dialler, mut acceptor) = linked();
    let mut answers = Vec::new();
    let mut frames = Vec::new();
    for _ in 0..2 {
        answers.push(ask(&mut dialler, 1, at(9_000)));
        let mut effects = Effects::new();
        dialler.flush(at(1), &mut effects);
        frames.extend(sent(&mut effects));
    }
    let mut effects = Effects::new();
    acceptor.arrived(at(2), frames.pop().unwrap(), &mut effects);
    assert!(
        matches!(effects.as_slice(), [Effect::Reset(Reason::Missing { .. })]),
        "{effects:?}"
    );
    assert!(!acceptor.is_up());
}

#[test]
fn what_was_sent_is_unknown_and_what_was_not_is_not_decided() {
    let (mut dialler, _) = linked();
    let mut gone = ask(&mut dialler, 1, at(9_000));
    let mut effects = Effects::new();
    dialler.flush(at(1), &mut effects);
    let mut waiting = ask(&mut dialler, 1, at(9_000));
    dialler.reset(Reason::Lost, &mut effects);
    answer(effects);
    let mut late = ask(&mut dialler, 1, at(9_000));
    assert_eq!(gone.try_recv(), Ok(Err(Setback::Unknown)));
    assert_eq!(waiting.try_recv(), Ok(Err(Setback::Moved)));
    assert_eq!(late.try_recv(), Ok(Err(Setback::Moved)));
}

#[test]
fn silence_in_either_direction_ends_the_link() {
    let (mut dialler, mut acceptor) = linked();
    let (mut at_dialler, mut at_acceptor) = (Effects::new(), Effects::new());
    // The acceptor is heard, but does not hear: its own heartbeats arrive and are answered into the void.
    for millis in (1_000..=6_000).step_by(500) {
        dialler.tick(at(millis), &mut at_dialler);
        acceptor.tick(at(millis), &mut at_acceptor);
        drain(at(millis), &mut dialler, &mut at_dialler);
        for frame in drain(at(millis), &mut acceptor, &mut at_acceptor) {
            dialler.arrived(at(millis), frame, &mut at_dialler);
        }
    }
    for effects in [at_dialler, at_acceptor] {
        assert!(
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Reset(Reason::Silent))),
            "{effects:?}"
        );
    }
}

#[test]
fn heartbeats_that_are_answered_keep_a_link_up() {
    let (mut dialler, mut acceptor) = linked();
    let mut answered = 0;
    for millis in (1_000..60_000).step_by(250) {
        let (effects, _) = settle(at(millis), &mut dialler, &mut acceptor);
        answered += effects
            .iter()
            .filter(|effect| matches!(effect, Effect::HeartbeatAnswered { .. }))
            .count();
    }
    assert!(dialler.is_up() && acceptor.is_up());
    assert_eq!(answered, 59);
}

#[test]
fn what_waits_travels_in_as_few_frames_as_hold_it() {
    let (mut dialler, _) = linked();
    let mut receivers = Vec::new();
    for number in 1..=10_000 {
        receivers.push(ask(&mut dialler, number, at(9_000)));
    }
    let mut effects = Effects::new();
    dialler.flush(at(1), &mut effects);
    let frames: Vec<(usize, usize)> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Send { bytes, requests } => (bytes.len(), *requests),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        frames.len() < 3
            && frames
                .iter()
                .all(|(bytes, _)| *bytes <= crate::link::frame::FRAME_BYTES_MAX),
        "{frames:?}"
    );
    assert_eq!(frames.iter().map(|(_, requests)| requests).sum::<usize>(), 10_000);
    assert_eq!(dialler.in_flight(), 10_000);
}

#[test]
fn an_expired_request_is_not_sent_and_not_asked() {
    let (mut dialler, mut acceptor) = linked();
    let (mut here, mut effects) = (ask(&mut dialler, 1, at(100)), Effects::new());
    dialler.flush(at(100), &mut effects);
    assert!(sent(&mut effects).is_empty());
    answer(effects);
    assert_eq!(here.try_recv(), Ok(Err(Setback::Expired)));
    // Less than can be told is nothing.
    let mut there = ask(&mut dialler, 1, at(200) + Duration::from_nanos(10));
    let (effects, asked) = settle(at(200), &mut dialler, &mut acceptor);
    answer(effects);
    assert_eq!(there.try_recv(), Ok(Err(Setback::Expired)));
    assert!(!asked.iter().any(|effect| matches!(effect, Effect::Ask(..))));
}

#[test]
fn a_request_that_is_never_answered_gives_its_place_back() {
    let (mut dialler, mut acceptor) = linked();
    let mut answers: Vec<_> = (0..3).map(|_| ask(&mut dialler, 1, at(2_000))).collect();
    assert_eq!(
        ask(&mut dialler, 1, at(2_000)).try_recv(),
        Ok(Err(Setback::Overloaded))
    );
    for millis in (100..4_500).step_by(100) {
        let (effects, _) = settle(at(millis), &mut dialler, &mut acceptor);
        answer(effects);
    }
    assert!(
        answers
            .iter_mut()
            .all(|answer| answer.try_recv() == Ok(Err(Setback::Unknown)))
    );
    assert_eq!(dialler.in_flight(), 0);
    assert_eq!(
        ask(&mut dialler, 1, at(9_000)).try_recv(),
        Err(TryRecvError::Empty)
    );
}

/// One step of the model.
#[derive(Debug, Clone)]
enum Move {
    Ask(u64),
    Flush,
    /// The network carries the oldest frame.
    Carry,
    /// The peer answers the oldest request that it has; twice, if so.
    Answer {
        again: bool,
    },
    CarryBack,
    Wait(u64),
    Lose,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (1..4_u64).prop_map(Move::Ask),
        4 => Just(Move::Flush),
        4 => Just(Move::Carry),
        4 => any::<bool>().prop_map(|again| Move::Answer { again }),
        4 => Just(Move::CarryBack),
        2 => (1..600_u64).prop_map(Move::Wait),
        1 => Just(Move::Lose),
    ];
    proptest::collection::vec(one, 1..120)
}

proptest! {
    /// Whatever happens, every request has exactly one answer in the end, and *moved* means that the peer
    /// never had it.
    #[test]
    fn every_request_has_one_answer(moves in moves()) {
        let (mut dialler, mut acceptor) = linked();
        let (mut there, mut back, mut held) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (mut asked, mut seen, mut now) = (Vec::new(), Vec::new(), 10_u64);
        for step in moves {
            let (mut at_dialler, mut at_acceptor) = (Effects::new(), Effects::new());
            match step {
                Move::Ask(number) => {
                    let (reply, receiver) = Reply::new(Admission::new(1).admit().unwrap());
                    let key = RequestKey::parse(&format!("key-{}", asked.len())).unwrap();
                    let issue = IssueRequest { user: UserId::parse("alice").unwrap(), key: key.clone(), expires: at(now + 3_000) };
                    dialler.ask(coupon(number), Epoch::new(5), Request::Issue(issue, reply), &mut at_dialler);
                    asked.push((key, receiver));
                }
                Move::Flush => dialler.flush(at(now), &mut at_dialler),
                Move::Carry => {
                    if let Some(frame) = there.pop_front() {
                        acceptor.arrived(at(now), frame, &mut at_acceptor);
                    }
                }
                Move::Answer { again } => {
                    if let Some(id) = held.pop_front() {
                        for _ in 0..=usize::from(again) {
                            acceptor.answer(id, Answer::Issue(sold_out()));
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
                    drain(at(now), &mut dialler, &mut at_dialler).into_iter().for_each(|frame| there.push_back(frame));
                }
                Move::Lose => dialler.reset(Reason::Lost, &mut at_dialler),
            }
            there.extend(sent(&mut at_dialler));
            answer(at_dialler);
            back.extend(sent(&mut at_acceptor));
            for effect in at_acceptor {
                if let Effect::Ask(RemoteRequest { id, what: Asked::Issue { key, .. }, .. }, _) = effect {
                    seen.push(key);
                    held.push_back(id);
                }
            }
        }
        let mut effects = Effects::new();
        dialler.reset(Reason::Lost, &mut effects);
        answer(effects);
        prop_assert_eq!((dialler.in_flight(), dialler.window.coupons() > 0 && dialler.is_up()), (0, false));
        for (key, mut receiver) in asked {
            match receiver.try_recv() {
                Ok(Err(Setback::Moved | Setback::Overloaded | Setback::Expired)) => prop_assert!(!seen.contains(&key)),
                Ok(Err(Setback::Unknown)) => {}
                Ok(answered) => {
                    prop_assert_eq!(answered, sold_out());
                    prop_assert!(seen.contains(&key));
                }
                Err(nothing) => prop_assert!(false, "{key} was answered {nothing}"),
            }
        }
    }
}
