//! Tests of when an owner gathers, and of how it stops. Decisions are tested with the ledger, and everything
//! together by the simulation.

mod order;

use super::*;
use crate::admission::Admission;
use crate::coupon::change::{Change, ChangeRequest};
use crate::coupon::entry::CouponRun;
use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issue::IssueRequest;
use crate::coupon::issued::Issued;
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::{Coupon, Offer, Status};
use crate::coupon::uses::UseRequest;
use crate::coupon::uses::decide::Step;
use crate::coupon::{CouponAsk, CouponKind};
use crate::ids::{Author, OrderId, RequestKey, UserId};
use crate::time::Timestamp;

type Owner = super::Owner<CouponKind>;
type Effect = super::Effect<CouponKind>;
type OwnerCommand = super::OwnerCommand<CouponKind>;

fn now() -> Now {
    Now {
        moment: Moment::ORIGIN,
        timestamp: Timestamp::from_micros(0).unwrap(),
    }
}

fn fence() -> Fence {
    Fence {
        epoch: Epoch::new(1),
        owner: Incarnation::new(1).unwrap(),
    }
}

/// Makes an owner that gathers portions of up to three entries.
fn owner(total_quantity: Option<u64>) -> Owner {
    let (id, at) = (CouponId::new(1).unwrap(), Timestamp::from_micros(0).unwrap());
    let coupon = Coupon {
        id,
        offer: Offer {
            total_quantity,
            ..Offer::titled("test")
        },
        status: Status::Open,
        version: 1,
        created_at: at,
        updated_at: at,
    };
    let ledger = Ledger::new(coupon.into(), Issued::new(id));
    Owner::new(ledger, fence(), Duration::ZERO, 4, Moment::ORIGIN)
}

fn decide(owner: &mut Owner, ask: CouponAsk) -> Vec<Effect> {
    let (reply, _answer) = Reply::new(Admission::new(1).admit().unwrap());
    let expires = Moment::at(Duration::from_secs(1));
    command(owner, OwnerCommand::Decide(Request { ask, expires, reply }))
}

/// Decides an issue request of each of these users, none of whom made a request before.
fn issue(owner: &mut Owner, users: std::ops::Range<u32>) -> Vec<Effect> {
    let request = |user| IssueRequest {
        user: UserId::parse(&format!("user-{user}")).unwrap(),
        key: RequestKey::parse("key").unwrap(),
    };
    users
        .flat_map(|user| decide(owner, request(user).into()))
        .collect()
}

fn command(owner: &mut Owner, command: OwnerCommand) -> Vec<Effect> {
    let mut effects = Vec::new();
    owner.handle(command, now(), true, &mut effects);
    effects
}

fn settle(owner: &mut Owner, fate: Fate) -> Vec<Effect> {
    command(
        owner,
        OwnerCommand::Settle(Settlement {
            fence: fence(),
            fate,
            batch: None,
        }),
    )
}

/// Returns the effects in order: `a` for an answer, `s` and the number of rows for a submission, `g` for
/// gathering.
fn summary(effects: &[Effect]) -> String {
    let letter = |effect: &Effect| match effect {
        Effect::Answer(..) => "a".to_owned(),
        Effect::Submit(portion, _) => format!("s{}", portion.run.rows()),
        Effect::Gather => "g".to_owned(),
        other => panic!("{other:?}"),
    };
    effects.iter().map(letter).collect()
}

/// Makes an owner whose first issuance came back fenced.
fn fenced() -> Owner {
    let mut owner = owner(None);
    issue(&mut owner, 0..1);
    let effects = settle(&mut owner, Fate::Fenced);
    assert!(matches!(effects[..], [Effect::ReportFenced(_)]), "{effects:?}");
    owner
}

#[test]
fn a_few_waiting_callers_share_a_portion_with_callers_that_were_just_answered() {
    let mut owner = owner(None);
    let effects = issue(&mut owner, 0..3);
    assert_eq!(summary(&effects), "s1", "an idle owner does not wait");
    assert_eq!(summary(&settle(&mut owner, Fate::Stored)), "ag");
    assert_eq!(summary(&issue(&mut owner, 3..4)), "");
    assert_eq!(summary(&command(&mut owner, OwnerCommand::Submit)), "s3");
    let effects = settle(&mut owner, Fate::Stored);
    assert_eq!(
        summary(&effects),
        "aaag",
        "the three callers may ask again at once"
    );
    let effects = command(&mut owner, OwnerCommand::Submit);
    assert_eq!(summary(&effects), "", "or they may not");
    assert_eq!(summary(&issue(&mut owner, 5..6)), "s1");
    let effects = settle(&mut owner, Fate::Stored);
    assert_eq!(summary(&effects), "a", "a single caller does not wait for others");
    assert_eq!(summary(&issue(&mut owner, 6..7)), "s1");
}

#[test]
fn a_large_portion_is_sent_before_the_callers_of_the_last_portion_are_answered() {
    let mut owner = owner(None);
    issue(&mut owner, 0..5);
    assert_eq!(summary(&settle(&mut owner, Fate::Stored)), "s4a");
}

#[test]
fn gathering_ends_when_there_are_enough_entries_or_no_entry_can_join() {
    let mut enough = owner(None);
    issue(&mut enough, 0..4);
    assert_eq!(summary(&settle(&mut enough, Fate::Stored)), "ag");
    assert_eq!(summary(&issue(&mut enough, 4..5)), "s4", "enough entries");
    assert_eq!(summary(&command(&mut enough, OwnerCommand::Submit)), "");

    let mut sold_out = owner(Some(3));
    issue(&mut sold_out, 0..3);
    let effects = settle(&mut sold_out, Fate::Stored);
    assert_eq!(summary(&effects), "s2a", "no coupon is left");

    let mut changed = owner(None);
    issue(&mut changed, 0..1);
    let pause = ChangeRequest::from(Change::Pause);
    decide(&mut changed, pause.into());
    let effects = settle(&mut changed, Fate::Stored);
    assert_eq!(summary(&effects), "s1a", "a change has a portion of its own");
}

#[test]
fn a_draining_owner_does_not_gather() {
    let mut owner = owner(None);
    issue(&mut owner, 0..3);
    command(&mut owner, OwnerCommand::Drain);
    assert_eq!(summary(&settle(&mut owner, Fate::Stored)), "s2a");
}

/// The actor takes no command while its owner gathers; the simulation may send one.
#[test]
fn an_owner_that_is_drained_while_it_gathers_stores_everything_before_it_stops() {
    let mut owner = owner(None);
    issue(&mut owner, 0..3);
    settle(&mut owner, Fate::Stored);
    assert_eq!(summary(&command(&mut owner, OwnerCommand::Drain)), "");
    assert_eq!(summary(&command(&mut owner, OwnerCommand::Submit)), "s2");
    let effects = settle(&mut owner, Fate::Stored);
    assert!(
        matches!(effects.last(), Some(Effect::Stop { unsettled: false })),
        "{effects:?}"
    );
}

#[test]
fn a_fenced_portion_is_sent_again_under_the_next_epoch() {
    let effects = command(&mut fenced(), OwnerCommand::Refence(Epoch::new(2)));
    assert!(
        matches!(&effects[..], [Effect::Submit(portion, _)] if portion.fence.epoch == Epoch::new(2)),
        "{effects:?}"
    );
}

#[test]
fn a_draining_owner_does_not_wait_for_an_epoch_that_never_comes() {
    let effects = command(&mut fenced(), OwnerCommand::Drain);
    assert!(
        matches!(effects.last(), Some(Effect::Stop { unsettled: true })),
        "{effects:?}"
    );
}

fn use_issuance(owner: &mut Owner, sequence: u64, step: Step) -> Vec<Effect> {
    let request = UseRequest {
        sequence: Sequence::new(sequence),
        of_user: None,
        author: Author::parse("key:shop").unwrap(),
        step,
    };
    decide(owner, request.into())
}

fn redeem(owner: &mut Owner, sequence: u64) -> Vec<Effect> {
    let order = OrderId::parse("order").unwrap();
    let amount = Some(1);
    use_issuance(owner, sequence, Step::Redeem { order, amount })
}

fn give_back(owner: &mut Owner, sequence: u64) -> Vec<Effect> {
    let (reason, returns) = (None, true);
    use_issuance(owner, sequence, Step::Revoke { reason, returns })
}

/// Makes an owner with this many stored issuances, of which the users before this number have one, and one
/// more whose portion is in flight.
fn busy(total_quantity: Option<u64>, users: u32) -> Owner {
    let mut owner = owner(total_quantity);
    issue(&mut owner, 0..users);
    stored(&mut owner);
    issue(&mut owner, users..users + 1);
    owner
}

/// Settles all portions. Returns the portions after the first one: `i` or `u` or `c` with the number of rows,
/// and how many answers left when it was stored.
fn stored(owner: &mut Owner) -> Vec<(String, usize)> {
    let mut portions: Vec<(String, usize)> = Vec::new();
    loop {
        let mut effects = settle(owner, Fate::Stored);
        effects.extend(command(owner, OwnerCommand::Submit));
        let answers = effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Answer(..)));
        if let Some((_, answered)) = portions.last_mut() {
            *answered = answers.count();
        }
        let submitted = effects.iter().find_map(|effect| match effect {
            Effect::Submit(portion, _) => Some(&portion.run),
            _ => None,
        });
        let Some(run) = submitted else {
            assert_eq!((owner.unstored(), owner.waiting()), (0, 0));
            return portions;
        };
        let sort = match run {
            CouponRun::Issuances(_) => 'i',
            CouponRun::Uses(_) => 'u',
            CouponRun::Change(_) => 'c',
        };
        portions.push((format!("{sort}{}", run.rows()), 0));
    }
}

fn expected(portions: &[(&str, usize)]) -> Vec<(String, usize)> {
    let owned = portions
        .iter()
        .map(|(portion, answers)| ((*portion).to_owned(), *answers));
    owned.collect()
}

#[test]
fn entries_of_two_sorts_in_turn_are_stored_by_one_portion_of_each_sort() {
    let mut owner = busy(None, 100);
    for number in 1..=100 {
        redeem(&mut owner, u64::from(number));
        issue(&mut owner, 100 + number..101 + number);
    }
    // The answers after the first use wait for the first issuance between the uses.
    assert_eq!(stored(&mut owner), expected(&[("u100", 1), ("i100", 199)]));
}

#[test]
fn the_oldest_entry_is_always_in_the_next_portion() {
    let mut owner = busy(None, 10);
    redeem(&mut owner, 1);
    issue(&mut owner, 20..21);
    let effects = settle(&mut owner, Fate::Stored);
    assert_eq!(summary(&effects), "ag");
    command(&mut owner, OwnerCommand::Submit);
    // While the use is in flight, more uses come. The issuance does not wait for them.
    for sequence in 2..=5 {
        redeem(&mut owner, sequence);
    }
    assert_eq!(stored(&mut owner), expected(&[("i1", 1), ("u4", 4)]));
}

#[test]
fn a_use_does_not_pass_its_issuance() {
    let mut owner = busy(None, 10);
    redeem(&mut owner, 1);
    issue(&mut owner, 20..21);
    redeem(&mut owner, 2);
    redeem(&mut owner, 12);
    redeem(&mut owner, 3);
    issue(&mut owner, 21..22);
    assert_eq!(stored(&mut owner), expected(&[("u2", 1), ("i2", 2), ("u2", 3)]));
}

#[test]
fn an_issuance_does_not_pass_the_use_that_gave_it_back() {
    let mut owner = busy(Some(5), 2);
    issue(&mut owner, 10..11);
    redeem(&mut owner, 2);
    issue(&mut owner, 11..12);
    give_back(&mut owner, 1);
    // Only what was given back is left.
    issue(&mut owner, 12..13);
    assert_eq!(stored(&mut owner), expected(&[("i2", 1), ("u2", 3), ("i1", 1)]));
}

#[test]
fn nothing_passes_a_change_and_no_use_passes_one_with_a_reason() {
    let mut owner = busy(None, 10);
    issue(&mut owner, 20..21);
    redeem(&mut owner, 1);
    decide(&mut owner, ChangeRequest::from(Change::Pause).into());
    decide(&mut owner, ChangeRequest::from(Change::Resume).into());
    issue(&mut owner, 21..22);
    let revoke = Step::Revoke {
        reason: Some("fraud".to_owned()),
        returns: false,
    };
    use_issuance(&mut owner, 2, revoke);
    issue(&mut owner, 22..23);
    redeem(&mut owner, 3);
    assert_eq!(
        stored(&mut owner),
        expected(&[
            ("i1", 1),
            ("u1", 1),
            ("c1", 1),
            ("c1", 1),
            ("i2", 1),
            ("u1", 2),
            ("u1", 1)
        ])
    );
}

#[test]
fn stored_entries_are_the_issuances_that_are_stored_whatever_else_is_not() {
    let mut owner = busy(None, 10);
    let stored_entries = |owner: &Owner| (owner.stored_entries(), owner.unstored());
    assert_eq!(stored_entries(&owner), (10, 1));
    redeem(&mut owner, 1);
    issue(&mut owner, 20..21);
    redeem(&mut owner, 2);
    decide(&mut owner, ChangeRequest::from(Change::Pause).into());
    assert_eq!(stored_entries(&owner), (10, 5));
    let next = |owner: &mut Owner| {
        settle(owner, Fate::Stored);
        command(owner, OwnerCommand::Submit);
        stored_entries(owner)
    };
    // The second use passes the issuance that was decided before it.
    assert_eq!(next(&mut owner), (11, 4), "the issuance that was in flight");
    assert_eq!(next(&mut owner), (11, 3), "the uses");
    assert_eq!(next(&mut owner), (12, 1), "the issuance between them");
    assert_eq!(next(&mut owner), (12, 0), "the change");
}
