"""The dashboard of a cluster: nodes, who owns what, what moves, and the links between nodes."""

from panels import (
    BLUE,
    CLUSTER,
    GREEN,
    GREY,
    NODES,
    ORANGE,
    RED,
    YELLOW,
    Query,
    add,
    frame,
    lines,
    number,
    quantile,
    rate,
    section,
    steps,
)

# Only a node with a lease has read the rows of nodes and shards lately.
CURRENT = f"and on (job, instance) (coupon_lease_remaining_seconds{{{CLUSTER}}} > 0)"
MINUTE = "* 60"


def state():
    """Panels that say at a glance whether the cluster is whole."""
    forwarded = rate("coupon_requests_forwarded_total", CLUSTER)
    return (
        number(
            "Nodes ready",
            "Nodes to which a balancer sends requests.",
            f"sum(coupon_ready{{{CLUSTER}}})",
            thresholds=steps((1, GREEN), base=RED),
            anchor="couponnodenotready",
        ),
        number(
            "Live nodes, as the rows say",
            "Nodes whose row in the database is live. More than the ready ones while nodes join or leave.",
            f"max(sum by (instance) (coupon_cluster_nodes{{{CLUSTER}}} {CURRENT}))",
            anchor="couponnodedown",
        ),
        number(
            "Targets down",
            "Nodes that Prometheus does not reach.",
            f"count(up{{{CLUSTER}}} == 0) or vector(0)",
            thresholds=steps((1, RED)),
            anchor="couponnodedown",
        ),
        number(
            "Shards without an owner",
            "Shards whose row names no live node. Above 0 only for seconds, while nodes take over.",
            f"max(coupon_shards_unowned{{{CLUSTER}}} {CURRENT})",
            thresholds=steps((1, RED)),
            anchor="couponshardwithoutowner",
        ),
        number(
            "Nodes without a lease",
            "A node without a lease decides nothing.",
            f"count(coupon_lease_remaining_seconds{{{CLUSTER}}} == 0) or vector(0)",
            thresholds=steps((1, RED)),
            anchor="couponnodewithoutlease",
        ),
        number(
            "Forwarded, of all",
            "Attempts that went to an owner on another node, for each issue request. With three nodes and "
            "no preference of the balancer about two thirds.",
            f"sum({forwarded}) / sum({rate('coupon_issue_total', CLUSTER)})",
            "percentunit",
        ),
    )


def ownership():
    """Panels about nodes, shards and what moves between them."""
    return (
        section("Nodes and shards"),
        lines(
            "Shards by node",
            "Shards that each node serves. They add up to 256, except for seconds at a take-over.",
            [Query(f"coupon_shards_owned{{{NODES}}}", "{{instance}}")],
            stacked=True,
            anchor="couponshardwithoutowner",
            decimals=0,
        ),
        lines(
            "Why a node is not ready",
            "1 for each reason that /readyz gives. Nothing is shown while all nodes are ready.",
            [Query(f"coupon_not_ready{{{NODES}}} > 0", "{{instance}}: {{reason}}")],
            anchor="couponnodenotready",
            maximum=1,
            decimals=0,
        ),
        lines(
            "Time left in the lease, by node",
            "A node decides while this is above 0. It is renewed with every beat.",
            [Query(f"coupon_lease_remaining_seconds{{{NODES}}}", "{{instance}}")],
            "s",
            anchor="couponnodewithoutlease",
        ),
        lines(
            "Moves of shards a minute, by kind",
            "handed_over, released and lost: away from a node; received and claimed: to a node.",
            [
                Query(
                    f"sum by (kind) ({rate('coupon_shard_moves_total')}) {MINUTE}",
                    "{{kind}}",
                )
            ],
            colors={"handed_over": BLUE, "received": GREEN, "claimed": YELLOW, "released": GREY, "lost": RED},
        ),
        lines(
            "Time without an owner (p99), by kind",
            "taken_over: from the last beat of the dead node to the claim. handed_over: from closing the "
            "shard to the row that names the next owner.",
            [Query(quantile(0.99, "coupon_shard_move_duration_seconds", "kind"), "{{kind}}")],
            "s",
            colors={"taken_over": ORANGE, "handed_over": BLUE},
        ),
        lines(
            "Highest epoch of all shards",
            "Each change of a shard's owner raises its epoch by one. A steady climb means that shards "
            "never come to rest.",
            [Query(f"max(coupon_shard_epoch_max{{{CLUSTER}}} {CURRENT})", "highest epoch")],
            minimum=None,
            decimals=0,
        ),
        lines(
            "Live nodes by state, as the rows say",
            "Joining, ready and leaving nodes, as the nodes last read the rows.",
            [Query(f"max by (state) (coupon_cluster_nodes{{{CLUSTER}}} {CURRENT})", "{{state}}")],
            stacked=True,
            colors={"ready": GREEN, "joining": BLUE, "leaving": YELLOW},
            decimals=0,
        ),
        lines(
            "Claims of shards a minute, by node",
            "Also claims that raise the epoch of a shard of the same node.",
            [Query(f"{rate('coupon_shard_claims_total')} {MINUTE}", "{{instance}}")],
        ),
        lines(
            "Beats a second, by result",
            "Beats in the database. A failed beat costs a node part of its lease.",
            [Query(f"sum by (result) ({rate('coupon_beats_total')})", "{{result}}")],
            "ops",
            colors={"ok": GREEN, "failed": RED},
            anchor="couponnodewithoutlease",
        ),
    )


def links():
    """Panels about the links between nodes."""
    return (
        section("Links between nodes"),
        lines(
            "Links by node",
            "Peers to which the node has a link: one less than there are nodes.",
            [Query(f"coupon_peers_up{{{NODES}}}", "{{instance}}")],
            anchor="couponpeermissing",
            decimals=0,
        ),
        lines(
            "Round trip to a peer (p99), by node",
            "From a heartbeat to its answer.",
            [Query(quantile(0.99, "coupon_peer_round_trip_seconds", "instance"), "{{instance}}")],
            "s",
            anchor="couponpeermissing",
        ),
        lines(
            "Requests in flight to peers, by node",
            "Requests that were sent to peers and are not answered.",
            [Query(f"coupon_peer_requests_in_flight{{{NODES}}}", "{{instance}}")],
            stacked=True,
            anchor="couponqueuenearbound",
            decimals=0,
        ),
        lines(
            "Bytes a second, by direction",
            "Bytes of frames between nodes.",
            [Query(f"sum by (direction) ({rate('coupon_peer_bytes_total')})", "{{direction}}")],
            "Bps",
        ),
        lines(
            "Requests in a frame (mean), by node",
            "Requests that travelled together. Busy links carry many in one frame.",
            [
                Query(
                    f"sum by (instance) ({rate('coupon_peer_frame_requests_sum')}) "
                    f"/ sum by (instance) ({rate('coupon_peer_frame_requests_count')})",
                    "{{instance}}",
                )
            ],
        ),
        lines(
            "Requests that wait for a moving shard, by node",
            "They follow their shard to its next owner.",
            [Query(f"coupon_requests_waiting_for_owner{{{NODES}}}", "{{instance}}")],
            stacked=True,
            anchor="couponshardwithoutowner",
            decimals=0,
        ),
    )


def never():
    """Panels about what should not happen."""
    return (
        section("Never expected: these stay at 0"),
        lines(
            "Never expected: contradictions, database backwards, panics",
            "The store contradicted an owner; the database lost what it had confirmed; an owner panicked.",
            [
                Query(f"sum(increase(coupon_contradictions_total{{{CLUSTER}}}[$__range]))", "contradictions"),
                Query(
                    f"sum(increase(coupon_database_went_backwards_total{{{CLUSTER}}}[$__range]))", "backwards"
                ),
                Query(f"sum(increase(coupon_owner_panics_total{{{CLUSTER}}}[$__range]))", "panics"),
            ],
            thresholds=steps((0.5, RED)),
            anchor="couponcontradiction",
        ),
        lines(
            "Never expected: refused by or of a peer",
            "Frames that were dropped, and connections and links that were refused or given up, a minute, "
            "by reason. A node that stops or dies causes some. Nothing is shown while there are none.",
            [Query(f"sum by (reason) ({rate('coupon_peer_refused_total')}) {MINUTE} > 0", "{{reason}}")],
            anchor="couponpeermissing",
        ),
        lines(
            "Rows that the fence refused",
            "Rows a minute of a shard with another owner or epoch. Expected only at a take-over.",
            [Query(f"sum by (instance) ({rate('coupon_fenced_rows_total')}) {MINUTE}", "{{instance}}")],
            anchor="couponrowsfenced",
        ),
    )


def build():
    """Returns the dashboard."""
    board = frame("firstcome-cluster", "Firstcome: Cluster", "Nodes, shards, and the links between nodes.")
    for panel in (*state(), *ownership(), *links(), *never()):
        add(board, panel)
    return board
