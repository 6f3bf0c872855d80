use std::sync::atomic::{AtomicU32, Ordering};

use actors::coupon::ids::IssuanceId;
use actors::coupon::offer::Issuance;
use actors::coupon::rows::{CouponSnapshot, UserStepPage};
use actors::coupon::uses::{UseNumber, UseState};
use actors::ids::{AuthorKind, RequestKey};
use async_trait::async_trait;

use super::*;
use crate::service::engine::{CouponPage, CouponQuery, Statistics, StatisticsQuery};

fn user() -> UserId {
    UserId::parse("alice").unwrap()
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// Returns an issuance of a coupon that was issued at this time.
fn issuance(coupon: u64, issued_at: i64) -> UsedIssuance {
    UsedIssuance::from(Issuance {
        id: IssuanceId {
            coupon: CouponId::new(coupon).unwrap(),
            sequence: Sequence::new(1),
        },
        user: user(),
        nth: 1,
        key: RequestKey::random(),
        issued_at: at(issued_at),
        expires_at: None,
    })
}

/// The rows of a user with one issuance of each coupon, from the id 1 on. Each takes a step, a large one two.
#[derive(Default)]
struct Rows {
    /// When each was issued.
    issued_at: Vec<i64>,
    /// Those that are not issued yet.
    later: Vec<u64>,
    /// Those that do not fit into a step.
    large: Vec<u64>,
    /// Those that have expired.
    expired: Vec<u64>,
    /// The number of steps that were taken.
    steps: Arc<AtomicU32>,
    /// The number of statements that read what was found before.
    read_again: Arc<AtomicU32>,
}

impl Rows {
    fn issuance(&self, coupon: u64) -> UsedIssuance {
        let mut used = issuance(coupon, self.issued_at[coupon as usize - 1]);
        used.issuance.expires_at = self.expired.contains(&coupon).then(|| at(1));
        used
    }
}

#[async_trait]
impl CouponSnapshot for Rows {
    async fn coupon(&self, _: CouponId) -> StoreResult<Option<CouponView>> {
        unreachable!("coupons are read together")
    }

    async fn coupons(&self, _: &CouponQuery) -> StoreResult<CouponPage> {
        unreachable!("no coupons are searched for")
    }

    async fn issuances(&self, _: &IssuanceQuery) -> StoreResult<Option<IssuancePage>> {
        unreachable!("the list is too long for one statement")
    }

    async fn issuances_with_ids(&self, ids: &[IssuanceId]) -> StoreResult<Vec<UsedIssuance>> {
        self.read_again.fetch_add(1, Ordering::Relaxed);
        Ok(ids.iter().map(|id| self.issuance(id.coupon.get())).collect())
    }

    async fn count_of_user(&self, _: &UserId, (after, last): Coupons) -> StoreResult<u64> {
        let first = after.map_or(1, |after| after.get() + 1);
        let last = last.map_or(self.issued_at.len() as u64, CouponId::get);
        Ok((first..=last)
            .filter(|coupon| !self.later.contains(coupon))
            .count() as u64)
    }

    async fn user_step(&self, step: &UserStep) -> StoreResult<UserStepPage> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        let first = match step.place {
            UserPlace::After(after) => after.map_or(1, |after| after.get() + 1),
            UserPlace::Within(coupon, _) => coupon.get(),
        };
        let last = self.issued_at.len() as u64;
        let next = (first..=last)
            .find(|coupon| !self.later.contains(coupon))
            .unwrap_or(last);
        if self.large.contains(&next) && !matches!(step.place, UserPlace::Within(..)) {
            return Ok(UserStepPage {
                issuances: Vec::new(),
                next: CouponId::new(next).map(|coupon| UserPlace::Within(coupon, 1)),
            });
        }
        let used = self.issuance(next);
        let is_listed =
            step.state.is_none_or(|state| used.state(step.now) == state) && !self.later.contains(&next);
        let is_last = next == last;
        Ok(UserStepPage {
            issuances: Some(used).filter(|_| is_listed).into_iter().collect(),
            next: Some(UserPlace::After(CouponId::new(next))).filter(|_| !is_last),
        })
    }

    async fn coupons_of(&self, ids: &[CouponId]) -> StoreResult<HashMap<CouponId, CouponView>> {
        assert_eq!(ids.len(), 2, "the coupons of the page");
        Ok(HashMap::new())
    }

    async fn last_use(&self, _: CouponId) -> StoreResult<UseNumber> {
        unreachable!("uses are not followed")
    }

    async fn statistics(&self, _: &StatisticsQuery, _: Statistics) -> StoreResult<Option<Statistics>> {
        unreachable!("nothing is counted")
    }
}

fn key(state: Option<UseState>, limit: u32) -> PageKey {
    PageKey {
        author: Author::new(AuthorKind::Key, "admin").unwrap(),
        user: user(),
        coupon: None,
        state,
        after: None,
        limit,
    }
}

/// A request whose time is over, or has begun, when its search asks for a snapshot and when it begins.
#[derive(Clone, Copy)]
struct Late {
    asked: bool,
    begun: bool,
}

const IN_TIME: Late = Late {
    asked: false,
    begun: false,
};

/// It takes no more steps than a search always takes.
const LATE: Late = Late {
    asked: true,
    begun: true,
};

/// Searches for a page in a request. Returns the coupons of what was found, newest first, and that of the
/// issuance after which the next page begins; `None` if the search did not end.
async fn search(
    rows: Rows,
    progress: &UserProgress,
    key: &PageKey,
    late: Late,
) -> Option<(Vec<u64>, Option<u64>)> {
    search_asked_at(time::moment(), rows, progress, key, late).await
}

/// Does the same for a request that came at this moment.
async fn search_asked_at(
    asked_at: Moment,
    rows: Rows,
    progress: &UserProgress,
    key: &PageKey,
    late: Late,
) -> Option<(Vec<u64>, Option<u64>)> {
    let long_ago = Instant::now().checked_sub(FRUITLESS_TIME_MAX).unwrap();
    let since = |is_over| if is_over { long_ago } else { Instant::now() };
    let snapshot = SearchSnapshot::alone(Box::new(rows)).await;
    let search = Search {
        snapshot: &snapshot,
        progress,
        key: key.clone(),
        limit: key.limit + 1,
        with_coupons: key.limit == 1,
        asked: since(late.asked),
        asked_at,
        begun: since(late.begun),
    };
    let found = search.run(progress.find(key, time::moment())).await.ok()?;
    let ids = found.issuances.iter().map(|used| used.issuance.id.coupon.get());
    Some((ids.collect(), found.next.map(|next| next.id.coupon.get())))
}

/// Returns rows of coupons that were issued at these times.
fn issued(issued_at: &[i64]) -> Rows {
    Rows {
        issued_at: issued_at.to_vec(),
        ..Rows::default()
    }
}

#[test]
fn the_newest_issuances_of_all_steps_are_kept_in_order() {
    let all = [(1, 50), (2, 60), (3, 60), (4, 10), (5, 70)].map(|(coupon, at)| issuance(coupon, at));
    let ids = |limit, floor: Option<&UsedIssuance>| {
        let mut newest = Newest::new(limit);
        newest.floor = floor.map(Row::cursor);
        for step in [&all[..1], &all[1..3], &all[3..]] {
            newest.add(step.to_vec());
        }
        let ids = newest.issuances.iter().map(|used| used.issuance.id.coupon.get());
        (
            ids.collect::<Vec<_>>(),
            newest
                .reached(Vec::new(), None)
                .floor
                .map(|floor| floor.id.coupon.get()),
        )
    };
    assert_eq!(ids(10, None), (vec![5, 3, 2, 1, 4], None));
    assert_eq!(ids(3, None), (vec![5, 3, 2], Some(2)));
    assert_eq!(ids(10, Some(&all[1])), (vec![5, 3, 2], Some(2)));
    assert_eq!(ids(2, Some(&all[1])), (vec![5, 3], Some(3)));
}

#[tokio::test]
async fn a_users_list_that_takes_too_long_ends() {
    for (late, count, expected) in [(IN_TIME, 5, 5), (LATE, 1, 1), (LATE, 5, 1)] {
        let rows = issued(&vec![50; count]);
        let steps = Arc::clone(&rows.steps);
        let found = search(rows, &UserProgress::default(), &key(None, 2), late).await;
        assert_eq!(steps.load(Ordering::Relaxed), expected);
        assert_eq!(found.is_some(), count == expected as usize, "{found:?}");
    }
}

#[tokio::test]
async fn a_users_list_comes_further_in_each_request_and_ends() {
    let progress = UserProgress::default();
    let times = [40, 90, 20, 70, 80, 10];
    let (key, all) = (key(None, 1), [2, 5]);
    for request in 1..=6 {
        let rows = issued(&times);
        let steps = Arc::clone(&rows.steps);
        let found = search(rows, &progress, &key, LATE).await;
        assert_eq!(steps.load(Ordering::Relaxed), 1, "request {request}");
        let expected = Some((all.to_vec(), None)).filter(|_| request == 6);
        assert_eq!(found, expected, "request {request}");
    }
    // No client got this page in time. A retry has nothing left to examine.
    let rows = issued(&times);
    let steps = Arc::clone(&rows.steps);
    assert_eq!(
        search(rows, &progress, &key, IN_TIME).await,
        Some((all.to_vec(), None))
    );
    assert_eq!(steps.load(Ordering::Relaxed), 0);
}

/// Each statement waits for a turn, after those of other searches.
#[tokio::test]
async fn one_statement_reads_again_what_earlier_requests_found() {
    let progress = UserProgress::default();
    let (key, times) = (key(None, 200), vec![50; 150]);
    for request in 0..150 {
        let rows = issued(&times);
        let read_again = Arc::clone(&rows.read_again);
        let found = search(rows, &progress, &key, LATE).await;
        assert_eq!(found.is_some(), request == 149);
        assert_eq!(read_again.load(Ordering::Relaxed), u32::from(request > 0));
    }
}

/// The time that a search waits for its snapshot is not taken from its own.
#[tokio::test]
async fn a_search_that_waited_for_its_snapshot_has_time_for_all_steps() {
    let (progress, key) = (UserProgress::default(), key(None, 1));
    let waited = Late {
        asked: true,
        begun: false,
    };
    let found = search(issued(&[40, 90, 20]), &progress, &key, waited).await;
    assert_eq!(found, Some((vec![2, 1], None)));
    let kept = progress.find(&key, time::moment());
    assert_eq!(
        kept.map(|reached| reached.next),
        Some(None),
        "the client may be gone"
    );
}

#[tokio::test]
async fn a_search_in_time_keeps_nothing() {
    let (progress, key) = (UserProgress::default(), key(None, 1));
    let found = search(issued(&[40, 90, 20]), &progress, &key, IN_TIME).await;
    assert_eq!(found, Some((vec![2, 1], None)));
    assert_eq!(progress.find(&key, time::moment()), None);
}

/// Whatever was examined before, an issuance that was answered is on the page.
#[tokio::test]
async fn a_retry_finds_what_was_issued_since_the_first_request() {
    let (progress, key) = (UserProgress::default(), key(None, 2));
    let times = [40, 95, 20, 99, 90, 10];
    let rows = |later: &[u64]| Rows {
        later: later.to_vec(),
        ..issued(&times)
    };
    for _ in 1..=3 {
        assert_eq!(search(rows(&[2, 4]), &progress, &key, LATE).await, None);
    }
    let after = rows(&[]);
    let steps = Arc::clone(&after.steps);
    // However late it is, one part is examined again: the coupons 2 and 3.
    assert_eq!(search(after, &progress, &key, LATE).await, None);
    assert_eq!(steps.load(Ordering::Relaxed), 3);
    assert_eq!(
        search(rows(&[]), &progress, &key, LATE).await,
        Some((vec![4, 2, 5], None))
    );
    let kept = progress.find(&key, time::moment()).unwrap();
    assert_eq!(kept.parts.iter().map(|part| part.count).sum::<u64>(), 6);
}

/// The part of a large coupon begins within it.
#[tokio::test]
async fn a_retry_finds_what_was_issued_since_of_a_coupon_before_a_large_one() {
    let (progress, key) = (UserProgress::default(), key(None, 2));
    let rows = |later: &[u64]| Rows {
        later: later.to_vec(),
        large: vec![3],
        ..issued(&[40, 95, 20, 30])
    };
    for _ in 1..=3 {
        assert_eq!(search(rows(&[2]), &progress, &key, LATE).await, None);
    }
    assert_eq!(
        search(rows(&[]), &progress, &key, LATE).await,
        Some((vec![2, 1, 4], None))
    );
}

#[tokio::test]
async fn very_many_coupons_are_counted_in_a_bounded_number_of_parts() {
    let (progress, key, times) = (UserProgress::default(), key(None, 2), vec![50; 250]);
    let waited = Late {
        asked: true,
        begun: false,
    };
    for (later, newest, count) in [(vec![240], [250, 249, 248], 249), (vec![], [240, 250, 249], 250)] {
        let mut rows = issued(&times);
        rows.issued_at[239] = 60;
        rows.later = later;
        let found = search(rows, &progress, &key, waited).await;
        assert_eq!(found, Some((newest.to_vec(), None)));
        let kept = progress.find(&key, time::moment()).unwrap();
        let counted = kept.parts.iter().map(|part| part.count).sum::<u64>();
        assert_eq!((kept.parts.len(), counted), (PARTS_MAX, count));
    }
}

#[tokio::test]
async fn a_search_whose_page_was_answered_meanwhile_keeps_nothing() {
    let (progress, key) = (UserProgress::default(), key(None, 1));
    let rows = || issued(&[40, 90, 20]);
    let came_at = time::moment();
    progress.end(&key, time::moment());
    let found = search_asked_at(came_at, rows(), &progress, &key, LATE).await;
    assert_eq!((found, progress.find(&key, time::moment())), (None, None));
    assert_eq!(search(rows(), &progress, &key, LATE).await, None);
    assert!(progress.find(&key, time::moment()).is_some());
}

#[tokio::test]
async fn issuances_that_left_the_state_meanwhile_are_not_on_the_page() {
    let times = [90, 80, 70, 60, 85, 75];
    let key = key(Some(UseState::Issued), 2);
    // 1, 2 and 3 are found, and 4 is dropped.
    let progress = UserProgress::default();
    for _ in 1..=4 {
        assert_eq!(search(issued(&times), &progress, &key, LATE).await, None);
    }
    let kept = progress.find(&key, time::moment()).unwrap();
    let again = async |expired: &[u64]| {
        let now = time::moment();
        progress.keep(&key, kept.clone(), now, now);
        let rows = Rows {
            expired: expired.to_vec(),
            ..issued(&times)
        };
        search(rows, &progress, &key, IN_TIME).await
    };
    assert_eq!(again(&[]).await, Some((vec![1, 5, 2], None)));
    assert_eq!(again(&[1]).await, Some((vec![5, 2, 6], None)));
    // The page ends where what was dropped may belong: nothing older than 3 is on it.
    assert_eq!(again(&[1, 3, 5]).await, Some((vec![2, 6], Some(3))));
    assert_eq!(again(&[1, 2, 3]).await, Some((vec![5, 6], Some(3))));
    // Nothing of the page is left, but the list may not end here: the search begins anew.
    assert_eq!(again(&[1, 2, 3, 5, 6]).await, None);
    assert_eq!(progress.find(&key, time::moment()), None);
}
