use std::collections::BTreeSet;

use actors::coupon::ids::IssuanceId;
use actors::coupon::offer::Issuance;
use actors::coupon::rows::{CouponSnapshot, UserStep, UserStepPage};
use actors::ids::{AuthorKind, RequestKey};
use async_trait::async_trait;

use super::*;
use crate::service::engine::{CouponPage, CouponQuery, Statistics, StatisticsQuery};

/// The rows of a coupon, of whose issuances few can be used.
#[derive(Clone, Default)]
struct Rows {
    issued: u64,
    usable: BTreeSet<u64>,
    /// The issuance of each use.
    uses: Vec<u64>,
}

fn issuance(sequence: u64) -> UsedIssuance {
    UsedIssuance::from(Issuance {
        id: IssuanceId {
            coupon: coupon(),
            sequence: Sequence::new(sequence),
        },
        user: UserId::parse("alice").unwrap(),
        nth: 1,
        key: RequestKey::random(),
        issued_at: time::timestamp(),
        expires_at: None,
    })
}

#[async_trait]
impl CouponSnapshot for Rows {
    async fn coupon(&self, _: CouponId) -> StoreResult<Option<CouponView>> {
        unreachable!("a search reads its coupons with its issuances")
    }

    async fn coupons(&self, _: &CouponQuery) -> StoreResult<CouponPage> {
        unreachable!("no coupons are searched for")
    }

    async fn issuances(&self, query: &IssuanceQuery) -> StoreResult<Option<IssuancePage>> {
        let limit = query.limit as usize;
        let (found, next): (Vec<u64>, _) = match query.of {
            IssuancesOf::Coupon { after, .. } => {
                let up_to = after.get() + u64::from(query.examine);
                let found = self.usable.range(after.get() + 1..=up_to).copied();
                let found: Vec<u64> = found.take(limit).collect();
                let last = found.last().copied().filter(|_| found.len() == limit);
                let reached = last.unwrap_or(up_to);
                (found, Some(reached).filter(|reached| *reached < self.issued))
            }
            IssuancesOf::Used {
                uses: (after, up_to),
                sequences: (above, highest),
                ..
            } => {
                let uses = &self.uses[after.get() as usize..up_to.get() as usize];
                let is_found = |sequence: &&u64| {
                    above.get() < **sequence && **sequence <= highest.get() && self.usable.contains(*sequence)
                };
                let found: BTreeSet<u64> = uses.iter().filter(is_found).copied().collect();
                (found.into_iter().take(limit).collect(), None)
            }
            IssuancesOf::Id(_) | IssuancesOf::User { .. } => unreachable!("no search asks for these"),
        };
        Ok(Some(IssuancePage {
            issuances: found.into_iter().map(issuance).collect(),
            next: next.map(Sequence::new),
            ..IssuancePage::default()
        }))
    }

    async fn issuances_with_ids(&self, _: &[IssuanceId]) -> StoreResult<Vec<UsedIssuance>> {
        unreachable!("what was found is not read again by ids")
    }

    async fn count_of_user(&self, _: &UserId, _: (Option<CouponId>, Option<CouponId>)) -> StoreResult<u64> {
        unreachable!("no user is asked for")
    }

    async fn user_step(&self, _: &UserStep) -> StoreResult<UserStepPage> {
        unreachable!("no user is asked for")
    }

    async fn coupons_of(&self, _: &[CouponId]) -> StoreResult<HashMap<CouponId, CouponView>> {
        unreachable!("a search reads its coupons with its issuances")
    }

    async fn last_use(&self, _: CouponId) -> StoreResult<UseNumber> {
        Ok(UseNumber::new(self.uses.len() as u64))
    }

    async fn statistics(&self, _: &StatisticsQuery, _: Statistics) -> StoreResult<Option<Statistics>> {
        unreachable!("nothing is counted")
    }
}

fn coupon() -> CouponId {
    CouponId::parse("7").unwrap()
}

fn key() -> ListKey {
    ListKey {
        author: Author::new(AuthorKind::Key, "admin").unwrap(),
        coupon: coupon(),
        user: None,
        state: UseState::Issued,
        after: Sequence::NONE,
    }
}

/// Searches for up to `limit` issuances in a request whose time is over, so that it takes no more steps than a
/// search always takes. Returns their sequences; `None` if the search did not end.
async fn search_late(rows: &Rows, progress: &IssuanceProgress, limit: u32) -> Option<Vec<u64>> {
    search_begun_at(time::moment(), rows, progress, limit).await
}

/// Does the same for a request that came at this moment.
async fn search_begun_at(
    begun_at: Moment,
    rows: &Rows,
    progress: &IssuanceProgress,
    limit: u32,
) -> Option<Vec<u64>> {
    let snapshot = SearchSnapshot::alone(Box::new(rows.clone())).await;
    let options = IssuanceListOptions {
        state: Some(UseState::Issued),
        ..IssuanceListOptions::default()
    };
    let of = IssuancesOf::Coupon {
        coupon: coupon(),
        user: None,
        after: Sequence::NONE,
    };
    let search = Search {
        snapshot: &snapshot,
        progress,
        key: key(),
        query: options.query(of, limit),
        begun: Instant::now().checked_sub(FRUITLESS_TIME_MAX).unwrap(),
        begun_at,
    };
    let found = search.run(progress.find(&key(), time::moment())).await;
    let found = found.ok()?.expect("the coupon exists").issuances;
    Some(found.iter().map(|used| used.issuance.id.sequence.get()).collect())
}

#[tokio::test]
async fn a_search_comes_further_in_each_request_however_many_issuances_are_used() {
    let progress = IssuanceProgress::default();
    let mut rows = Rows {
        issued: 5 * u64::from(STEP),
        ..Rows::default()
    };
    rows.usable.insert(rows.issued);
    for request in 1..=5 {
        let found = search_late(&rows, &progress, 10).await;
        if request < 5 {
            assert_eq!(found, None);
            let up_to = progress.find(&key(), time::moment()).map(|kept| kept.up_to);
            assert_eq!(up_to, Some(Sequence::new(request * u64::from(STEP))));
        } else {
            assert_eq!(found, Some(vec![77, rows.issued]));
        }
        rows.uses.extend(100..100 + USES_STEP - 1);
        if request == 4 {
            // It was examined, and is given back.
            rows.usable.insert(77);
            rows.uses.push(77);
        }
    }
}

#[tokio::test]
async fn a_search_whose_list_was_answered_meanwhile_keeps_nothing() {
    let progress = IssuanceProgress::default();
    let rows = Rows {
        issued: 2 * u64::from(STEP),
        ..Rows::default()
    };
    let came_at = time::moment();
    progress.end(&key(), time::moment());
    assert_eq!(search_begun_at(came_at, &rows, &progress, 10).await, None);
    assert_eq!(progress.find(&key(), time::moment()), None);
    assert_eq!(search_late(&rows, &progress, 10).await, None);
    assert!(progress.find(&key(), time::moment()).is_some());
}

#[tokio::test]
async fn a_search_that_catches_up_ends_in_time_and_keeps_how_far_it_came() {
    let progress = IssuanceProgress::default();
    let mut rows = Rows {
        issued: 2 * u64::from(STEP),
        ..Rows::default()
    };
    assert_eq!(search_late(&rows, &progress, 10).await, None);
    rows.uses = (0..3 * USES_STEP).map(|number| number % 50 + 1).collect();
    for request in 1..=2 {
        assert_eq!(search_late(&rows, &progress, 10).await, None);
        let kept = progress.find(&key(), time::moment()).unwrap();
        assert_eq!(kept.used, UseNumber::new(request * USES_STEP));
        assert_eq!(kept.up_to, Sequence::new(STEP.into()));
    }
    assert_eq!(search_late(&rows, &progress, 10).await, Some(Vec::new()));
}

/// Searches for issued ones, with time for all steps, from where an earlier request stopped.
async fn found_from(
    snapshot: &SearchSnapshot,
    progress: &IssuanceProgress,
    examined: Examined,
    limit: u32,
) -> Vec<u64> {
    let options = IssuanceListOptions {
        state: Some(UseState::Issued),
        ..IssuanceListOptions::default()
    };
    let search = Search {
        snapshot,
        progress,
        key: key(),
        query: options.query(IssuancesOf::Id(issuance(1).issuance.id), limit),
        begun: Instant::now(),
        begun_at: time::moment(),
    };
    let found = search.run(Some(examined)).await.unwrap().unwrap().issuances;
    found.iter().map(|used| used.issuance.id.sequence.get()).collect()
}

#[tokio::test]
async fn what_was_found_is_not_lost_if_catching_up_takes_several_requests() {
    let progress = IssuanceProgress::default();
    let mut rows = Rows {
        issued: 2 * u64::from(STEP),
        ..Rows::default()
    };
    assert_eq!(search_late(&rows, &progress, 10).await, None);
    // Both are found in the first step, and one of them again in the last step.
    rows.usable = [30, 40].into();
    rows.uses = vec![7; 2 * USES_STEP as usize];
    (rows.uses[0], rows.uses[1]) = (40, 30);
    rows.uses.push(30);
    let before = progress.find(&key(), time::moment()).unwrap();
    // The next request has time for all, and goes on from before the first of them.
    assert_eq!(search_late(&rows, &progress, 10).await, None);
    let snapshot = SearchSnapshot::alone(Box::new(rows)).await;
    let examined = progress.find(&key(), time::moment()).unwrap();
    assert_eq!(examined.used, UseNumber::new(USES_STEP));
    assert_eq!(examined.up_to, Sequence::new(29));
    // A request that has time for all steps finds the same from where the earlier one began.
    for (examined, limit, expected) in [
        (examined, 10, &[30, 40][..]),
        (examined, 1, &[30, 40]),
        (examined, 0, &[30]),
        (before, 10, &[30, 40]),
        (before, 1, &[30, 40]),
        (before, 0, &[30]),
    ] {
        let found = found_from(&snapshot, &progress, examined, limit).await;
        assert_eq!(found, expected, "{examined:?} {limit}");
    }
}

#[tokio::test]
async fn a_page_has_the_first_of_all_issuances_that_were_found_again() {
    let progress = IssuanceProgress::default();
    let mut rows = Rows {
        issued: STEP.into(),
        usable: [30, 40].into(),
        // The first step finds the second one, and the last step the first one.
        uses: vec![7; 2 * USES_STEP as usize],
    };
    rows.uses[0] = 40;
    rows.uses.push(30);
    let snapshot = SearchSnapshot::alone(Box::new(rows)).await;
    for (limit, expected) in [(0, &[30][..]), (1, &[30, 40])] {
        let examined = Examined {
            up_to: Sequence::new(STEP.into()),
            used: UseNumber::NONE,
        };
        let found = found_from(&snapshot, &progress, examined, limit).await;
        assert_eq!(found, expected, "{limit}");
    }
}
