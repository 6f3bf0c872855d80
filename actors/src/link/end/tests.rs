//! Two ends of a link, and between them a network that loses and delays frames.

mod model;

use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::oneshot::{self, Receiver};

use super::*;
use crate::admission::Admission;
use crate::ids::{Incarnation, NodeId};
use crate::link::hello::VERSIONS;
use crate::link::payload::sample::{NEWEST_NUMBER, Sample, SampleAnswer, SampleAsk};

type Effect = super::Effect<Sample>;
type Effects = super::Effects<Sample>;
type Frame = super::Frame<Sample>;
type LinkEnd = super::LinkEnd<Sample>;
type Outgoing = super::Outgoing<Sample>;

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
        flow_places: 3,
    }
}

/// Returns a dialler with incarnation 1, and an acceptor with incarnation 2.
fn ends(generation: u64) -> (LinkEnd, LinkEnd) {
    let dialler = LinkEnd::new(terms(Role::Dialler { generation }, hello(1), 2));
    (
        dialler,
        LinkEnd::new(terms(Role::Acceptor { above: 0 }, hello(2), 1)),
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

/// Carries frames both ways until no frame is left, and answers heartbeats.
fn settle(now: Moment, one: &mut LinkEnd, other: &mut LinkEnd) -> (Effects, Effects) {
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

/// Handles heartbeats as a shell does, and returns the frames to send.
fn drain(now: Moment, link: &mut LinkEnd, effects: &mut Effects) -> Vec<Frame> {
    for effect in effects
        .extract_if(.., |effect| {
            matches!(effect, Effect::BeatDue | Effect::HeartbeatReceived(_))
        })
        .collect::<Vec<_>>()
    {
        match effect {
            Effect::HeartbeatReceived(message) => link.answer_heartbeat(message.id, message.content),
            _ => link.beat(now, b"beat".to_vec()),
        }
    }
    link.flush(now, effects);
    sent(effects)
}

fn linked() -> (LinkEnd, LinkEnd) {
    let (mut dialler, mut acceptor) = ends(1);
    settle(at(0), &mut dialler, &mut acceptor);
    assert!(dialler.is_up() && acceptor.is_up());
    (dialler, acceptor)
}

/// Makes a request with this number. It shares a window with the other requests of its flow.
fn request(flow: u64, number: u64, expires: Moment) -> (Outgoing, Receiver<SampleAnswer>) {
    let (reply, receiver) = oneshot::channel();
    let ask = SampleAsk::numbered(number);
    let request = Outgoing {
        flow,
        expires,
        ask,
        reply,
    };
    (request, receiver)
}

/// Returns a place in a queue that nothing else uses.
fn place() -> Permit {
    Admission::new(1).admit().unwrap()
}

/// Carries out the replies among effects, and returns the other effects.
fn reply(effects: Effects) -> Effects {
    let mut others = Effects::new();
    for effect in effects {
        match effect {
            Effect::Reply(reply, answer) => Sample::reply(reply, answer),
            Effect::Full(request) => request.undelivered(Undelivered::NoRoom),
            other => others.push(other),
        }
    }
    others
}

/// Sends a request of this flow.
fn send(link: &mut LinkEnd, flow: u64, expires: Moment) -> Receiver<SampleAnswer> {
    let (request, receiver) = request(flow, flow, expires);
    let mut effects = Effects::new();
    link.send(request, place(), &mut effects);
    reply(effects);
    receiver
}

#[test]
fn both_ends_are_up_after_hello_and_the_first_frame() {
    let (mut dialler, mut acceptor) = ends(7);
    let (mut at_dialler, mut at_acceptor) = (Effects::new(), Effects::new());
    dialler.tick(at(0), &mut at_dialler);
    let [hello] = sent(&mut at_dialler).try_into().unwrap();
    acceptor.arrived(at(1), hello.clone(), &mut at_acceptor);
    assert_eq!(acceptor.generation(), 7);
    assert!(!acceptor.is_up(), "its hello may not have arrived");
    // The dialler repeats its hello, because the answer is late.
    acceptor.arrived(at(2), hello, &mut at_acceptor);
    let answers = sent(&mut at_acceptor);
    assert_eq!(answers.len(), 2, "the first answer may have come too early");
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
fn hello_is_repeated_at_an_interval_until_it_is_answered() {
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
fn a_mismatch_resets_both_ends_of_a_link_and_each_end_knows_why() {
    let mut dialler = LinkEnd::new(terms(Role::Dialler { generation: 1 }, hello(1), 2));
    let theirs = Hello {
        shards: 128,
        ..hello(2)
    };
    let mut acceptor = LinkEnd::new(terms(Role::Acceptor { above: 0 }, theirs, 1));
    let (at_dialler, mut at_acceptor) = settle(at(0), &mut dialler, &mut acceptor);
    assert!(
        matches!(at_dialler.as_slice(), [Effect::Reset(Reason::Refused(why))] if why.contains("256 shards"))
    );
    // The acceptor stays open so that the peer can read the refusal. If the session is lost meanwhile, the
    // acceptor still gives the mismatch as the reason.
    let mut left = LinkEnd::new(terms(
        Role::Acceptor { above: 0 },
        Hello {
            shards: 128,
            ..hello(2)
        },
        1,
    ));
    settle(
        at(0),
        &mut LinkEnd::new(terms(Role::Dialler { generation: 1 }, hello(1), 2)),
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
    let mut acceptor = LinkEnd::new(terms(Role::Acceptor { above: 4 }, hello(2), 1));
    let (_, at_acceptor) = settle(at(0), &mut dialler, &mut acceptor);
    assert!(matches!(at_acceptor.as_slice(), [Effect::Dropped("generation")]));
    assert!(!dialler.is_up() && !acceptor.is_up());
}

#[test]
fn frames_of_other_incarnations_and_other_generations_are_dropped() {
    let (mut dialler, mut acceptor) = linked();
    let header = Header {
        version: dialler.terms.hello.versions[0],
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
        answers.push(send(&mut dialler, 1, at(9_000)));
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
fn after_a_loss_sent_requests_are_unanswered_and_queued_requests_are_not_sent() {
    let (mut dialler, _) = linked();
    let mut gone = send(&mut dialler, 1, at(9_000));
    let mut effects = Effects::new();
    dialler.flush(at(1), &mut effects);
    let mut waiting = send(&mut dialler, 1, at(9_000));
    dialler.reset(Reason::Lost, &mut effects);
    reply(effects);
    let mut late = send(&mut dialler, 1, at(9_000));
    assert_eq!(gone.try_recv(), Ok(Err(Undelivered::Unanswered)));
    assert_eq!(waiting.try_recv(), Ok(Err(Undelivered::NotSent)));
    assert_eq!(late.try_recv(), Ok(Err(Undelivered::NotSent)));
}

#[test]
fn silence_in_either_direction_ends_the_link() {
    let (mut dialler, mut acceptor) = linked();
    let (mut at_dialler, mut at_acceptor) = (Effects::new(), Effects::new());
    // Frames of the acceptor arrive, and frames of the dialler are lost. So both ends miss their answers.
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
fn queued_requests_are_sent_in_as_few_frames_as_possible() {
    let (mut dialler, _) = linked();
    let mut receivers = Vec::new();
    for number in 1..=10_000 {
        receivers.push(send(&mut dialler, number, at(9_000)));
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
fn an_expired_request_is_not_sent() {
    let (mut dialler, _) = linked();
    let (mut receiver, mut effects) = (send(&mut dialler, 1, at(100)), Effects::new());
    dialler.flush(at(100), &mut effects);
    assert!(sent(&mut effects).is_empty());
    reply(effects);
    assert_eq!(receiver.try_recv(), Ok(Err(Undelivered::Expired)));
    assert_eq!((dialler.in_flight(), dialler.window.flows()), (0, 0));
}

/// The handler refuses a request that has expired when it arrives.
#[test]
fn a_request_has_no_more_time_at_the_peer_than_it_had_here() {
    for (nanos, micros) in [(10, 0), (999, 0), (1_999, 1)] {
        let (mut dialler, mut acceptor) = linked();
        let _receiver = send(&mut dialler, 1, at(200) + Duration::from_nanos(nanos));
        let (_, at_acceptor) = settle(at(200), &mut dialler, &mut acceptor);
        let handled = at_acceptor.iter().find_map(|effect| match effect {
            Effect::Handle(_, expires) => Some(*expires),
            _ => None,
        });
        assert_eq!(handled, Some(at(200) + Duration::from_micros(micros)));
    }
}

#[test]
fn an_unanswered_request_frees_its_place_in_the_window() {
    let (mut dialler, mut acceptor) = linked();
    let mut answers: Vec<_> = (0..3).map(|_| send(&mut dialler, 1, at(2_000))).collect();
    assert_eq!(
        send(&mut dialler, 1, at(2_000)).try_recv(),
        Ok(Err(Undelivered::NoRoom))
    );
    for millis in (100..4_500).step_by(100) {
        let (effects, _) = settle(at(millis), &mut dialler, &mut acceptor);
        reply(effects);
    }
    assert!(
        answers
            .iter_mut()
            .all(|answer| answer.try_recv() == Ok(Err(Undelivered::Unanswered)))
    );
    assert_eq!(dialler.in_flight(), 0);
    assert_eq!(
        send(&mut dialler, 1, at(9_000)).try_recv(),
        Err(TryRecvError::Empty)
    );
}

#[test]
fn a_request_that_the_release_of_the_peer_does_not_know_is_not_sent() {
    let told = |versions: &[u32]| {
        let (mut dialler, mut acceptor) = ends(1);
        acceptor.terms.hello.versions = versions.to_vec();
        settle(at(0), &mut dialler, &mut acceptor);
        assert!(dialler.is_up() && acceptor.is_up());
        [1, NEWEST_NUMBER].map(|number| {
            let (request, mut receiver) = request(1, number, at(1_000));
            let mut effects = Effects::new();
            dialler.send(request, place(), &mut effects);
            dialler.flush(at(0), &mut effects);
            reply(effects);
            receiver.try_recv()
        })
    };
    let waits = Err(TryRecvError::Empty);
    assert_eq!(
        told(&VERSIONS[1..]),
        [waits.clone(), Ok(Err(Undelivered::NotSent))]
    );
    assert_eq!(told(VERSIONS), [waits.clone(), waits]);
}
