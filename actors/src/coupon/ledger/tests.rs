//! Compares the kind's decisions with a model that keeps a plain list and reads the API's table of outcomes
//! from top to bottom.

use proptest::prelude::*;

use super::*;
use crate::coupon::change::{Change, ChangeOutcome, ChangeRefusal, ChangeRequest};
use crate::coupon::entry::CouponEntry;
use crate::coupon::ids::CouponId;
use crate::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use crate::coupon::offer::{Offer, OfferPatch, Status};
use crate::coupon::uses::{self, UseRequest};
use crate::coupon::{CouponAsk, CouponKind, CouponOutcome};
use crate::ids::Author;
use crate::owning::kind::{self, Kind};

type Verdict = kind::Verdict<CouponKind>;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn coupon(total_quantity: Option<u64>, per_user_limit: u8) -> Coupon {
    let offer = Offer {
        total_quantity,
        per_user_limit: Some(per_user_limit),
        ..Offer::titled("test")
    };
    Coupon {
        id: CouponId::new(1).unwrap(),
        offer,
        status: Status::Open,
        version: 1,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn ledger(coupon: Coupon) -> Ledger {
    let issued = Issued::new(coupon.id);
    Ledger::new(coupon.into(), issued)
}

fn request(user: u8, key: u8) -> IssueRequest {
    IssueRequest {
        user: UserId::parse(&format!("user-{user}")).unwrap(),
        key: RequestKey::parse(&format!("key-{key}")).unwrap(),
    }
}

fn judge_change(ledger: &Ledger, now: Timestamp, change: Change, if_version: Option<u64>) -> Verdict {
    let request = ChangeRequest {
        if_versions: if_version.into_iter().collect(),
        ..change.into()
    };
    CouponKind::judge(ledger, now, &request.into())
}

/// Makes the entry of this verdict, and returns the outcome.
fn enter(ledger: &mut Ledger, verdict: Verdict) -> CouponOutcome {
    match verdict {
        Verdict::Enter(entry) => CouponKind::apply(ledger, &entry),
        other => panic!("{other:?}"),
    }
}

fn refused(refusal: ChangeRefusal) -> Verdict {
    Verdict::Refused(CouponOutcome::Change(ChangeOutcome::Refused(refusal)))
}

#[derive(Debug, Clone)]
enum Step {
    Issue { user: u8, key: u8 },
    Change(Change),
    Pass { micros: i64 },
}

fn time() -> impl Strategy<Value = Option<Option<Timestamp>>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(None)),
        2 => (0..60_i64).prop_map(|micros| Some(Some(at(micros)))),
    ]
}

fn patch() -> impl Strategy<Value = OfferPatch> {
    let total = prop_oneof![
        2 => Just(None),
        1 => Just(Some(None)),
        3 => (1..12_u64).prop_map(|total| Some(Some(total))),
    ];
    (total, time(), time()).prop_map(|(total_quantity, starts_at, ends_at)| OfferPatch {
        total_quantity,
        starts_at,
        ends_at,
        ..OfferPatch::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..6_u8, 0..8_u8).prop_map(|(user, key)| Step::Issue { user, key }),
        1 => Just(Step::Change(Change::Pause)),
        2 => Just(Step::Change(Change::Resume)),
        2 => patch().prop_map(|patch| Step::Change(Change::Patch(Box::new(patch)))),
        2 => (0..10_i64).prop_map(|micros| Step::Pass { micros }),
    ]
}

/// Returns what the table says, given the list of issuances; `None` if the coupon is to be issued.
fn table(list: &[Issuance], coupon: &Coupon, now: Timestamp, request: &IssueRequest) -> Option<Verdict> {
    let known = |outcome| Some(Verdict::Known(CouponOutcome::Issue(outcome)));
    let of_user = list.iter().filter(|issuance| issuance.user == request.user);
    let of_user: Vec<&Issuance> = of_user.collect();
    if let Some(same) = of_user.iter().rev().find(|issuance| issuance.key == request.key) {
        return known(IssueOutcome::Replayed(Box::new((*same).clone().into())));
    }
    let limit = coupon.offer.per_user_limit;
    if limit.is_some_and(|limit| of_user.len() >= usize::from(limit)) {
        let latest = (*of_user.last().unwrap()).clone();
        return known(IssueOutcome::Refused(Refusal::AlreadyIssued(Box::new(
            latest.into(),
        ))));
    }
    let Offer {
        starts_at,
        ends_at,
        total_quantity,
        ..
    } = coupon.offer;
    let refusal = match (coupon.status, starts_at, ends_at, total_quantity) {
        (Status::Closed, ..) => Refusal::Closed,
        (Status::Paused, ..) => Refusal::Paused,
        (_, Some(starts_at), ..) if now < starts_at => Refusal::NotStarted {
            starts_at,
            server_time: now,
        },
        (_, _, Some(ends_at), _) if now >= ends_at => Refusal::Ended {
            ends_at,
            server_time: now,
        },
        (.., Some(total_quantity)) if list.len() as u64 >= total_quantity => {
            Refusal::SoldOut { total_quantity }
        }
        _ => return None,
    };
    Some(Verdict::Refused(CouponOutcome::Issue(IssueOutcome::Refused(
        refusal,
    ))))
}

/// Judges an issue request, compares the verdict with the table, and issues if the verdict says so.
fn check_issue(
    ledger: &mut Ledger,
    list: &mut Vec<Issuance>,
    now: Timestamp,
    request: IssueRequest,
) -> Result<(), TestCaseError> {
    let expected = table(list, ledger.coupon(), now, &request);
    let verdict = CouponKind::judge(ledger, now, &request.clone().into());
    let entry = match verdict {
        Verdict::Enter(entry) => entry,
        other => {
            prop_assert_eq!(Some(other), expected);
            return Ok(());
        }
    };
    prop_assert_eq!(None, expected);
    let CouponEntry::Issuance(issuance) = &entry else {
        return Err(TestCaseError::fail(format!("{entry:?}")));
    };
    prop_assert_eq!(issuance.id.sequence.get(), list.len() as u64 + 1);
    prop_assert_eq!((&issuance.user, &issuance.key), (&request.user, &request.key));
    let nth = list.iter().filter(|earlier| earlier.user == request.user).count() + 1;
    prop_assert_eq!(issuance.nth as usize, nth);
    let told = CouponKind::apply(ledger, &entry);
    prop_assert_eq!(told, CouponOutcome::Issue(IssueOutcome::Issued(issuance.clone())));
    list.push(issuance.clone());
    Ok(())
}

/// Judges a change. Checks that the offer is valid after the change, and that the version has grown by one if
/// the change made an entry.
fn check_change(ledger: &mut Ledger, now: Timestamp, change: Change) -> Result<(), TestCaseError> {
    let before = ledger.coupon().clone();
    let verdict = judge_change(ledger, now, change, None);
    prop_assert_eq!(ledger.coupon(), &before, "judging changes nothing");
    let is_entered = matches!(verdict, Verdict::Enter(_));
    if is_entered {
        enter(ledger, verdict);
    }
    prop_assert_eq!(ledger.coupon().version, before.version + u64::from(is_entered));
    prop_assert!(ledger.coupon().offer.check().is_empty());
    Ok(())
}

proptest! {
    #[test]
    fn decisions_follow_the_table_and_sequences_have_no_gap(
        total in prop::option::of(1..10_u64),
        limit in 1..4_u8,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut ledger = ledger(coupon(total, limit));
        let mut list: Vec<Issuance> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Pass { micros } => now += micros,
                Step::Issue { user, key } => check_issue(&mut ledger, &mut list, at(now), request(user, key))?,
                Step::Change(change) => check_change(&mut ledger, at(now), change)?,
            }
            prop_assert_eq!(ledger.last().get(), list.len() as u64);
            let total = ledger.coupon().offer.total_quantity;
            prop_assert!(total.is_none_or(|total| list.len() as u64 <= total));
        }
    }
}

#[test]
fn a_change_of_another_version_is_refused() {
    let ledger = ledger(coupon(Some(5), 1));
    assert_eq!(
        judge_change(&ledger, at(0), Change::Pause, Some(2)),
        refused(ChangeRefusal::VersionMismatch { version: 1 })
    );
    let verdict = judge_change(&ledger, at(0), Change::Pause, Some(1));
    assert!(matches!(verdict, Verdict::Enter(_)), "{verdict:?}");
}

#[test]
fn the_quantity_cannot_fall_below_what_is_decided() {
    let mut ledger = ledger(coupon(Some(5), 1));
    for user in 0..3 {
        let verdict = CouponKind::judge(&ledger, at(0), &request(user, 0).into());
        enter(&mut ledger, verdict);
    }
    let lower = |total| {
        Change::Patch(Box::new(OfferPatch {
            total_quantity: Some(Some(total)),
            ..OfferPatch::default()
        }))
    };
    assert_eq!(
        judge_change(&ledger, at(0), lower(2), None),
        refused(ChangeRefusal::QuantityBelowIssued {
            issued: 3,
            returned: 0
        })
    );
    let verdict = judge_change(&ledger, at(0), lower(3), None);
    enter(&mut ledger, verdict);
    assert!(ledger.is_sold_out());
}

#[test]
fn a_change_with_a_known_key_is_replayed_whatever_came_after_it() {
    let keyed = |change: Change, key: &str, if_versions: &[u64]| ChangeRequest {
        if_versions: if_versions.to_vec(),
        key: Some(RequestKey::parse(key).unwrap()),
        change,
        record: None,
    };
    let judge =
        |ledger: &Ledger, request: &ChangeRequest| CouponKind::judge(ledger, at(0), &request.clone().into());
    let mut ledger = ledger(coupon(Some(5), 1));
    let pause = keyed(Change::Pause, "pause", &[1]);
    let verdict = judge(&ledger, &pause);
    enter(&mut ledger, verdict);
    // Nothing is altered, but the key is remembered under the same version.
    let idle = keyed(Change::Pause, "idle", &[]);
    let verdict = judge(&ledger, &idle);
    enter(&mut ledger, verdict);
    assert_eq!(ledger.coupon().version, 2);
    let verdict = judge_change(&ledger, at(0), Change::Close, None);
    enter(&mut ledger, verdict);
    for request in [&pause, &idle] {
        let verdict = judge(&ledger, request);
        let Verdict::Known(CouponOutcome::Change(ChangeOutcome::Replayed(done))) = &verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!((done.coupon.version, done.coupon.status), (3, Status::Closed));
        let superseded = CouponKind::superseded(
            &request.clone().into(),
            &CouponOutcome::Change(ChangeOutcome::Replayed(done.clone())),
        );
        assert_eq!(superseded.map(|superseded| superseded.version), Some(3));
    }
    assert_eq!(
        judge(&ledger, &keyed(Change::Resume, "pause", &[])),
        Verdict::Known(CouponOutcome::Change(ChangeOutcome::Refused(
            ChangeRefusal::KeyReused
        )))
    );
    assert_eq!(
        judge(&ledger, &keyed(Change::Resume, "new", &[])),
        refused(ChangeRefusal::Closed),
        "a refusal"
    );
    assert_eq!(
        ledger.change_keys().find(&RequestKey::parse("new").unwrap()),
        None
    );
}

#[test]
fn closing_is_final_and_closing_again_changes_nothing() {
    let mut ledger = ledger(coupon(Some(5), 1));
    let verdict = judge_change(&ledger, at(0), Change::Close, None);
    enter(&mut ledger, verdict);
    assert_eq!(
        judge_change(&ledger, at(0), Change::Resume, None),
        refused(ChangeRefusal::Closed)
    );
    let verdict = judge_change(&ledger, at(0), Change::Close, None);
    assert!(
        matches!(
            &verdict,
            Verdict::Refused(CouponOutcome::Change(ChangeOutcome::Done(_)))
        ),
        "{verdict:?}"
    );
    assert_eq!(ledger.coupon().version, 2);
}

#[test]
fn the_end_of_use_is_fixed_when_the_coupon_is_issued() {
    let time = |text: &str| Timestamp::parse(text).unwrap();
    let now = time("2026-11-27T10:00:00+09:00");
    let offer = |days, until: Option<&str>, zone: Option<&str>| Offer {
        use_within_days: days,
        use_until: until.map(time),
        time_zone: zone.map(str::to_owned),
        per_user_limit: Some(2),
        ..Offer::titled("test")
    };
    let local = Some("Asia/Seoul");
    for (offer, expires_at) in [
        (offer(None, None, local), None),
        (offer(Some(30), None, None), Some("2026-12-27T10:00:00+09:00")),
        (offer(Some(30), None, local), Some("2026-12-28T00:00:00+09:00")),
        // A build with older data may not know the zone.
        (
            offer(Some(30), None, Some("Mars/Base")),
            Some("2026-12-27T10:00:00+09:00"),
        ),
        (
            offer(None, Some("2026-12-01T00:00:00Z"), local),
            Some("2026-12-01T00:00:00Z"),
        ),
        (
            offer(Some(30), Some("2026-12-01T00:00:00Z"), local),
            Some("2026-12-01T00:00:00Z"),
        ),
        (
            offer(Some(1), Some("2026-12-01T00:00:00Z"), None),
            Some("2026-11-28T10:00:00+09:00"),
        ),
    ] {
        let mut ledger = ledger(Coupon {
            offer,
            ..coupon(None, 2)
        });
        let issued = |ledger: &mut Ledger, key| {
            let verdict = CouponKind::judge(ledger, now, &request(1, key).into());
            match enter(ledger, verdict) {
                CouponOutcome::Issue(IssueOutcome::Issued(issuance)) => issuance.expires_at,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(issued(&mut ledger, 1), expires_at.map(time));
        let never = OfferPatch {
            title: Some("never".to_owned()),
            use_within_days: Some(None),
            use_until: Some(None),
            time_zone: Some(None),
            ..OfferPatch::default()
        };
        let verdict = judge_change(&ledger, now, Change::Patch(Box::new(never)), None);
        enter(&mut ledger, verdict);
        assert_eq!(issued(&mut ledger, 2), None);
        let first = ledger.issued().answered(&request(1, 1).user, &request(1, 1).key);
        assert_eq!(first.unwrap().expires_at, expires_at.map(time));
    }
}

fn revocation(sequence: u64) -> UseRequest {
    UseRequest {
        sequence: Sequence::new(sequence),
        of_user: None,
        author: Author::parse("key:shop").unwrap(),
        step: uses::decide::Step::Revoke {
            reason: None,
            returns: true,
        },
    }
}

#[test]
fn what_was_given_back_may_be_issued_beyond_the_quantity_also_by_the_metrics() {
    let mut ledger = ledger(coupon(Some(2), 1));
    let ask = |ledger: &mut Ledger, ask: CouponAsk| {
        let verdict = CouponKind::judge(ledger, at(1), &ask);
        enter(ledger, verdict)
    };
    for user in 1..=2 {
        ask(&mut ledger, request(user, 1).into());
    }
    assert!(ledger.is_sold_out());
    ask(&mut ledger, revocation(1).into());
    ask(&mut ledger, request(3, 1).into());
    assert!(ledger.is_sold_out());
    assert_eq!(
        (CouponKind::entries(&ledger), CouponKind::entries_max(&ledger)),
        (3, Some(3))
    );
}

#[test]
fn a_coupon_that_is_sold_out_again_adds_only_new_users_to_the_filter_of_those_that_have_it() {
    let mut ledger = ledger(coupon(Some(2), 1));
    let ask = |ledger: &mut Ledger, ask: CouponAsk| {
        let verdict = CouponKind::judge(ledger, at(1), &ask);
        enter(ledger, verdict)
    };
    for user in 1..=2 {
        ask(&mut ledger, request(user, 1).into());
    }
    let first = ledger.winners();
    assert!(Arc::ptr_eq(&first, &ledger.winners()), "nothing was issued since");
    ask(&mut ledger, revocation(1).into());
    ask(&mut ledger, request(3, 1).into());
    let held = |filter: &Filter| [1, 2, 3].map(|user| filter.may_hold(request(user, 1).user.as_str()));
    assert_eq!(held(&ledger.winners()), [true; 3]);
    assert_eq!(held(&first), [true, true, false], "a notice does not change");
    drop(first);
    let address = Arc::as_ptr(&ledger.winners());
    ask(&mut ledger, revocation(2).into());
    ask(&mut ledger, request(4, 1).into());
    assert_eq!(Arc::as_ptr(&ledger.winners()), address, "no filter is made anew");
    assert!(ledger.winners().may_hold(request(4, 1).user.as_str()));
}
