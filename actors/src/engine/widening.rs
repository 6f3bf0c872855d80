//! After a change that may widen a coupon: waiting until no door refuses any more by what the coupon was.
//!
//! Whoever lives is told, and says that it has heard; whoever does not, or is gone, is waited for as long as what it knows can count.

use std::time::Duration;

use crate::ids::{CouponId, Incarnation};
use crate::peer::lives::Lives;
use crate::peer::talk::News;
use crate::store::{NodeState, Store};
use crate::time::{self, Moment};

/// How long an answer of a peer is waited for before it is told again: its link may have been lost.
const TELL_LIMIT: Duration = Duration::from_millis(500);
/// Pause before a peer without a link is told again.
const TELL_PAUSE: Duration = Duration::from_millis(50);

/// Returns once no door refuses by versions of the coupon below this one. Without a limit of its own beyond what notices count: the caller sets one.
pub(super) async fn spread(lives: &Lives, store: &dyn Store, coupon: CouponId, version: u64) {
    let Some(until) = lives.unheard_until(time::moment()) else { return };
    let me = lives.incarnation();
    // Read after the change: whoever was told before it that the coupon is sold out is among them, or was ended.
    match store.nodes().await {
        Ok(nodes) => {
            let others = nodes.iter().filter(|node| node.state != NodeState::Ended && Some(node.incarnation) != me);
            let told = others.map(|node| tell(lives, node.incarnation, coupon, version, until));
            futures_util::future::join_all(told).await;
        }
        Err(error) => {
            tracing::warn!(%error, %coupon, "nobody knows who may refuse by what the coupon was; waiting until nobody can");
            sleep_until(until).await;
        }
    }
    if let Some(until) = lives.departed_until() {
        sleep_until(until).await;
    }
}

/// Tells one peer until it has heard, or what it knows counts no more.
async fn tell(lives: &Lives, peer: Incarnation, coupon: CouponId, version: u64, until: Moment) {
    let news = News::Widened { coupon, version };
    while !lives.tell(peer, &news, TELL_LIMIT.min(until.since(time::moment()))).await {
        if time::moment() >= until {
            tracing::warn!(%peer, %coupon, "a peer was not heard to forget what a change made untrue; it counts there no more");
            return;
        }
        tokio::time::sleep(TELL_PAUSE).await;
    }
}

async fn sleep_until(until: Moment) {
    tokio::time::sleep(until.since(time::moment())).await;
}
