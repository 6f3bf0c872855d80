//! Coupons, as the HTTP side of a node uses them: requests to their owners, and reads of their rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::coupon::change::{ChangeDone, ChangeOutcome, ChangeRefusal, ChangeRequest};
use crate::coupon::ids::CouponId;
use crate::coupon::issue::{IssueOutcome, IssueRequest, Refusal};
use crate::coupon::metrics;
use crate::coupon::offer::CouponView;
use crate::coupon::rows::CouponRows;
use crate::coupon::uses::decide::{Step, UseRefusal};
use crate::coupon::uses::{UseOutcome, UseRequest};
use crate::coupon::{CouponKind, CouponOutcome};
use crate::engine::Engine;
use crate::ids::{RequestKey, UserId};
use crate::owning::request::Setback;
use crate::trace::Span;

/// The answer to an issue request.
pub type IssueAnswer = Result<IssueOutcome, Setback>;
/// The answer to a request for a change.
pub type ChangeAnswer = Result<ChangeOutcome, Setback>;
/// The answer to a request for a use.
pub type UseAnswer = Result<UseOutcome, Setback>;

/// The coupons of an engine; cheap to clone.
#[derive(Clone)]
pub struct Coupons {
    engine: Engine<CouponKind>,
    rows: Arc<dyn CouponRows>,
}

impl Coupons {
    /// Makes the client of an engine whose store has these rows.
    pub fn new(engine: Engine<CouponKind>, rows: Arc<dyn CouponRows>) -> Self {
        Self { engine, rows }
    }

    /// Returns the engine.
    pub fn engine(&self) -> &Engine<CouponKind> {
        &self.engine
    }

    /// Returns the rows, for reads and for creating coupons.
    pub fn rows(&self) -> &dyn CouponRows {
        self.rows.as_ref()
    }

    /// Asks the coupon's owner to issue it to the user. Answers within `deadline`. What happens is recorded
    /// as parts of `span`.
    ///
    /// Cancel safety: a dropped future may leave the request decided. Another request with the same key gets
    /// that decision.
    ///
    /// # Errors
    ///
    /// The reason, if there is no decision to return.
    pub async fn issue(
        &self,
        coupon: CouponId,
        user: UserId,
        key: RequestKey,
        deadline: Duration,
        span: &Span,
    ) -> IssueAnswer {
        let begun = Instant::now();
        let ask = IssueRequest { user, key }.into();
        let answer = match self.engine.request(coupon, ask, deadline, span).await {
            Ok(CouponOutcome::Issue(outcome)) => Ok(outcome),
            // No owner gives this answer, so the decision is unknown.
            Ok(CouponOutcome::Change(_) | CouponOutcome::Use(_)) => Err(Setback::Unknown),
            Err(setback) => Err(setback),
        };
        count_issue(&answer, begun.elapsed());
        answer
    }

    /// Asks the coupon's owner for a change. Answers within `deadline`. What happens is recorded as parts of
    /// `span`.
    ///
    /// Cancel safety: a dropped future may leave the change made. If the request has a key, another request
    /// with that key gets the outcome.
    ///
    /// # Errors
    ///
    /// The reason, if there is no decision to return.
    pub async fn change(
        &self,
        coupon: CouponId,
        request: ChangeRequest,
        deadline: Duration,
        span: &Span,
    ) -> ChangeAnswer {
        let answer = match self.engine.change(coupon, request.into(), deadline, span).await {
            Ok(CouponOutcome::Change(outcome)) => Ok(outcome),
            Ok(CouponOutcome::Issue(_) | CouponOutcome::Use(_)) => Err(Setback::Unknown),
            Err(setback) => Err(setback),
        };
        count_change(&answer);
        answer
    }

    /// Returns a coupon after a change, all of it as of one moment. An owner of the former build does not
    /// know all fields of coupons; then this reads the coupon, whose change is already stored.
    ///
    /// # Errors
    ///
    /// If the coupon had to be read and could not be.
    pub async fn after_change(&self, done: ChangeDone) -> Result<CouponView, Setback> {
        let ChangeDone {
            coupon, issued, uses, ..
        } = done;
        if let Some(uses) = uses {
            return Ok(CouponView { coupon, issued, uses });
        }
        let read = self.rows.coupon(coupon.id).await;
        read.ok().flatten().ok_or(Setback::Unknown)
    }

    /// Asks the coupon's owner for a use. Answers within `deadline`. What happens is recorded as parts of
    /// `span`.
    ///
    /// Cancel safety: a dropped future may leave the use made. The same request again gets the outcome.
    ///
    /// # Errors
    ///
    /// The reason, if there is no decision to return.
    pub async fn use_issuance(
        &self,
        coupon: CouponId,
        request: UseRequest,
        deadline: Duration,
        span: &Span,
    ) -> UseAnswer {
        // A revocation may give back what doors hold to be gone.
        let step = request.step.name();
        let may_widen = matches!(request.step, Step::Revoke { returns: true, .. });
        let answer = if may_widen {
            self.engine.change(coupon, request.into(), deadline, span).await
        } else {
            self.engine.request(coupon, request.into(), deadline, span).await
        };
        let answer = match answer {
            Ok(CouponOutcome::Use(outcome)) => Ok(outcome),
            Ok(CouponOutcome::Issue(_) | CouponOutcome::Change(_)) => Err(Setback::Unknown),
            Err(setback) => Err(setback),
        };
        count_use(step, &answer);
        answer
    }
}

/// Counts the answer to an issue request, which took this long. Requests that reach an engine are counted
/// already.
pub fn count_issue(answer: &IssueAnswer, took: Duration) {
    let metrics = metrics::issues();
    let outcome = match answer {
        Ok(IssueOutcome::Issued(_)) => &metrics.issued,
        Ok(IssueOutcome::Replayed(_)) => &metrics.replayed,
        Ok(IssueOutcome::Refused(refusal)) => match refusal {
            Refusal::UnknownCoupon => &metrics.unknown_coupon,
            Refusal::AlreadyIssued(_) => &metrics.already_issued,
            Refusal::Closed => &metrics.closed,
            Refusal::Paused => &metrics.paused,
            Refusal::NotStarted { .. } => &metrics.not_started,
            Refusal::Ended { .. } => &metrics.ended,
            Refusal::SoldOut { .. } => &metrics.sold_out,
        },
        // An expired request had its turn too late, because too many requests were before it.
        Err(Setback::Overloaded | Setback::Expired) => &metrics.overloaded,
        Err(Setback::Moved) => &metrics.owner_moving,
        Err(Setback::StoreUnavailable) => &metrics.store_unavailable,
        Err(Setback::Unknown) => &metrics.outcome_unknown,
    };
    outcome.record(took);
}

/// Counts the answer to a request for a step. Requests that reach an engine are counted already.
pub fn count_use(step: &'static str, answer: &UseAnswer) {
    let outcome = match answer {
        Ok(UseOutcome::Done(_)) => "done",
        Ok(UseOutcome::Replayed(_)) => "replayed",
        Ok(UseOutcome::Refused(refusal)) => match refusal {
            UseRefusal::UnknownIssuance => "refused_unknown_issuance",
            UseRefusal::OrderMismatch(_) => "refused_order_mismatch",
            UseRefusal::Revoked => "refused_revoked",
            UseRefusal::Redeemed(_) => "refused_redeemed",
            UseRefusal::Reserved { .. } => "refused_reserved",
            UseRefusal::Expired { .. } => "refused_expired",
            UseRefusal::BelowMinimum { .. } => "refused_below_minimum",
            UseRefusal::NotReserved => "refused_not_reserved",
            UseRefusal::NotRedeemed => "refused_not_redeemed",
        },
        Err(Setback::Overloaded | Setback::Expired) => "overloaded",
        Err(Setback::Moved) => "owner_moving",
        Err(Setback::StoreUnavailable) => "store_unavailable",
        Err(Setback::Unknown) => "outcome_unknown",
    };
    metrics::stepped(step, outcome);
}

/// Counts the answer to a request for a change. Requests that reach an engine are counted already.
pub fn count_change(answer: &ChangeAnswer) {
    let outcome = match answer {
        Ok(ChangeOutcome::Done(_)) => "done",
        Ok(ChangeOutcome::Replayed(_)) => "replayed",
        Ok(ChangeOutcome::Refused(refusal)) => match refusal {
            ChangeRefusal::UnknownCoupon => "unknown_coupon",
            ChangeRefusal::VersionMismatch { .. } => "version_mismatch",
            ChangeRefusal::Closed => "closed",
            ChangeRefusal::QuantityBelowIssued { .. } => "quantity_below_issued",
            ChangeRefusal::Invalid(_) => "invalid",
            ChangeRefusal::KeyReused => "key_reused",
        },
        Err(Setback::Overloaded | Setback::Expired) => "overloaded",
        Err(Setback::Moved) => "owner_moving",
        Err(Setback::StoreUnavailable) => "store_unavailable",
        Err(Setback::Unknown) => "outcome_unknown",
    };
    metrics::changed(outcome);
}
