//! What the OpenAPI document says about each operation beyond its summary, and the groups of operations.

/// The groups of operations, in the order in which a new user needs them.
pub(super) const TAGS: [(&str, &str); 5] = [
    (
        "coupons",
        "Administrators create coupons and change them; anyone may read them. To try it, authorize with the \
         admin token, which is in the file `admin_token` of the node's data directory.",
    ),
    (
        "issuing",
        "Users get coupons, in order of arrival, and see what they have. To try it with `auth.mode = \
         header`, authorize `user_id` with any name, like `alice`.",
    ),
    (
        "using",
        "Shops use issuances for orders: reserve at the checkout, redeem when it is paid, release or refund \
         to give it back. At most one order has an issuance. A path names it by its id or its code. The same \
         step for the same order again is answered 200 with `Idempotent-Replayed: true`.",
    ),
    ("cluster", "Administrators see which node owns what."),
    (
        "operations",
        "For balancers, monitoring and programs: health, metrics, and this document.",
    ),
];

/// Returns the group of a path.
pub(super) fn tag(template: &str) -> &'static str {
    match template.split('/').nth(2) {
        _ if template.ends_with("/issuances") || template.starts_with("/v1/coupons/{id}/issuances") => {
            "issuing"
        }
        Some("issuances") if template.matches('/').count() > 3 => "using",
        Some("issuances" | "me") => "issuing",
        Some("coupons") => "coupons",
        Some("cluster") => "cluster",
        _ => "operations",
    }
}

/// Returns the description of the operation with this id; empty if it has none.
pub(super) fn operation(name: &str) -> &'static str {
    match name {
        "create_coupon" => {
            "`total_quantity` must be given; null is unlimited. An issuance expires `use_within_days` after \
             it was issued, with `time_zone` at the end of that day there, and at the latest at `use_until`; \
             what was issued keeps its expiry. Send an `Idempotency-Key`, and the same key with each retry: \
             all of them create one coupon."
        }
        "coupons" => {
            "Without `phase`, all coupons. `next_cursor` of a page is the `cursor` of the next page."
        }
        "coupon" => {
            "`status` is what administrators set; `phase` also depends on the time and on what is issued. \
             `ETag` is the version: it counts changes by administrators, not those of `issued` or `phase`."
        }
        "patch_coupon" => {
            "Fields that are absent stay as they are, and so do pairs of `metadata`. `per_user_limit` and \
             `status` cannot be patched. `total_quantity` cannot go below `issued` less `returned`. After \
             `OUTCOME_UNKNOWN`, the same `Idempotency-Key` tells what became of the change."
        }
        "pause_coupon" | "resume_coupon" | "close_coupon" => {
            "The body may be absent. A repetition is answered 200 and changes nothing. A closed coupon stays \
             closed. After `OUTCOME_UNKNOWN`, the same `Idempotency-Key` tells what became of the change."
        }
        "coupon_changes" => {
            "The creation and each change that made a version. `fields` is the body of the request. A change \
             that a node of the former build received has no `who` and no `what`; one that such a node \
             stored is missing."
        }
        "me" => {
            "The admin token is the key `admin`. A user without further rights has the role `user`. With a \
             key and a user, as a gateway may send them, the answer is the key."
        }
        "issuance" => {
            "A user sees only issuances to that user. Others are answered 404, like those that do not exist."
        }
        "cluster" => {
            "The nodes and shards as the database has them now. `incarnation` is one life of a node."
        }
        "cluster_coupon" => "`owner` is null while no node owns the shard.",
        _ => of_issuing(name),
    }
}

/// Returns the description of an operation on the issuances of a coupon.
fn of_issuing(name: &str) -> &'static str {
    match name {
        "issue" => {
            "201: the issuance is stored. Send an `Idempotency-Key`, and the same key with each retry: a \
             request that was served before is answered 201 with the first issuance and \
             `Idempotent-Replayed: true`. `ALREADY_ISSUED` carries the user's latest issuance. The body may \
             be absent; only services name a user in it."
        }
        "issue_in_bulk" => {
            "Each result has the `status` that a single request would have been answered with, and either \
             `issuance` or `code`; `ALREADY_ISSUED` has the user's latest issuance in `existing`. The \
             `Idempotency-Key` counts for each user, so a repeated call tells what became of each, and \
             issues to those who have nothing yet. The users reach the coupon's queue in the order of the \
             list. `limits.user_rate` does not apply. Results that the deadline cuts off are `OVERLOADED` \
             (nothing was issued) or `OUTCOME_UNKNOWN`. The call itself is refused only if nothing was \
             issued."
        }
        "export_csv" => {
            "The header line names the cells. A cell that begins with one of `= + - @ '` has an apostrophe \
             in front, so that no spreadsheet runs it; take one apostrophe off to get the value. Otherwise \
             as `issuances.ndjson`."
        }
        "export_ndjson" => {
            "What is stored when the request arrives, and nothing that is issued later; states are as of the \
             moment in which a line is read. A stream that cannot be completed ends without its last chunk: \
             the connection is reset. Drop an incomplete last line, and go on with `after_sequence`. \
             `Accept-Encoding` has no effect."
        }
        _ => of_a_list(name),
    }
}

/// Returns the description of an operation that lists or counts issuances.
fn of_a_list(name: &str) -> &'static str {
    match name {
        "coupon_issuances" => {
            "`after_sequence` continues a list that was read before, also after the last page of a cursor. \
             `state`, `order_amount` and `expand` are as in `GET /v1/me/issuances`. With `state` and without \
             `user_id` it is a search: a page may have fewer than `limit` issuances, and is empty only where \
             the list ends."
        }
        "my_issuances" => {
            "What was answered is in the list at once, on every node. `state` is what the field `state` \
             says; `usable` is the same as `issued`. With `order_amount` each issuance has a `quote`, with \
             `expand=coupon` its `coupon`. All that a page shows is of one moment."
        }
        "coupon_statistics" => {
            "Counted from rows: each issuance when it was issued, and each use when it happened. Of more \
             than 1,000 buckets in which something happened, `buckets` has the newest; `total` counts all. \
             The same request with `next_to` as `to` has the earlier ones."
        }
        "user_issuances" => {
            "For support and for a shop's own pages. Users have `GET /v1/me/issuances`, which says what the \
             parameters mean."
        }
        _ => of_a_use(name),
    }
}

/// Returns the description of an operation on an issuance.
fn of_a_use(name: &str) -> &'static str {
    match name {
        "quote_issuance" => {
            "With `usable` false, `code` is the code with which a reservation by a new order would be \
             refused. A reservation fixes what a quote says, unless the coupon or its state changes in \
             between."
        }
        "issuance_uses" => "Uses are only added. `by` is who asked, like `key:shop` or `user:alice`.",
        "reserve_issuance" => {
            "The discount is fixed, also if the coupon changes before it is redeemed. The hold lapses after \
             `hold` seconds. The order may still redeem then, unless another one was quicker. Users may \
             reserve what is theirs if `coupon.user_may_reserve` is set; `x-allowed` names them then."
        }
        "redeem_issuance" => {
            "`order_amount` may be absent if the order holds the issuance. A hold that began before the end \
             of use may be redeemed after it. 200 means that the issuance is used for this order only if \
             `state` is `redeemed` and `use.order_id` is this order: a late retry of an order that was \
             refunded is answered 200 with `Idempotent-Replayed: true`, and redeems nothing."
        }
        "release_issuance" => {
            "Users may release what is theirs if `coupon.user_may_reserve` is set; `x-allowed` names them \
             then."
        }
        "refund_issuance" => "`issued` and `remaining` of the coupon stay what they are.",
        "revoke_issuance" => {
            "With `return_quantity`, another one may be issued instead: `returned` of the coupon rises. The \
             user still counts as having it. The body may be absent."
        }
        _ => of_operators(name),
    }
}

/// Returns the description of an operation for operators and pages.
fn of_operators(name: &str) -> &'static str {
    match name {
        "livez" => "Never asks the database. Restart a process that does not answer.",
        "readyz" => {
            "503 while the node starts or stops, is outside the group, or has no lease or no database; \
             `reasons` says which."
        }
        "metrics" => "Each metric has a help text.",
        "openapi" => "Describes exactly what this node answers. Client generators read it.",
        "docs" => "Swagger UI, served by the node alone.",
        "docs_file" => "Scripts, styles and icons.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::routes::{Operation, ROUTES};

    #[test]
    fn every_operation_has_a_description_and_a_known_group() {
        for route in &ROUTES {
            let tag = tag(route.template());
            assert!(TAGS.iter().any(|(name, _)| *name == tag), "{tag}");
            for Operation { name, .. } in route.operations {
                assert!(!operation(name).is_empty(), "{name}");
            }
        }
    }
}
