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
    increase_by,
    lines,
    mean_of_nodes,
    nodes_down,
    nodes_ready,
    number,
    of_nodes,
    quantile_by,
    rate,
    rate_by,
    section,
    steps,
)

# Only a node with a lease has read the rows of nodes and shards recently.
CURRENT = f"and on (job, instance) (coupon_lease_remaining_seconds{{{CLUSTER}}} > 0)"


def state():
    """Panels that say at a glance whether the cluster is whole."""
    forwarded = rate("coupon_requests_forwarded_total", CLUSTER)
    return (
        nodes_ready(),
        number(
            "Live nodes in the database",
            "Nodes whose row in the database is live. There are more of them than ready nodes while nodes "
            "join or leave.",
            f"max(sum by (instance) (coupon_cluster_nodes{{{CLUSTER}}} {CURRENT}))",
            anchor="couponnodedown",
        ),
        nodes_down(),
        number(
            "Shards without an owner",
            "Shards whose row names no live node. Expected to be above 0 only for seconds, during a "
            "take-over.",
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
            "Forwarded, of all issue requests",
            "Attempts that went to an owner on another node, per issue request. About two thirds with three "
            "nodes and a balancer that distributes requests evenly.",
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
            "Shards that each node serves. Their sum is 256, except for some seconds at a take-over. It is "
            "above 256 for a moment if a shard moves between the scrapes of two nodes.",
            [of_nodes("coupon_shards_owned")],
            stacked=True,
            anchor="couponshardwithoutowner",
            decimals=0,
        ),
        lines(
            "Why a node is not ready",
            "1 for each reason that /readyz gives; reasons of the same moment lie on each other. Nothing is "
            "shown while all nodes are ready. A node that is down gives no reason: see Nodes down.",
            [Query(f"coupon_not_ready{{{NODES}}} > 0", "{{instance}}: {{reason}}")],
            anchor="couponnodenotready",
            maximum=1,
            decimals=0,
            empty="No node gives a reason",
        ),
        lines(
            "Time left in the lease, by node",
            "A node decides while this is above 0. It is renewed with every beat, and falls while a beat hangs. "
            "A node that is down has no line.",
            [of_nodes("coupon_lease_remaining_seconds")],
            "s",
            anchor="couponnodewithoutlease",
        ),
        lines(
            "Shards that moved in the last minute, by kind",
            "A node loses shards by handed_off, released and lost, and gets shards by received and claimed. "
            "Computed from scrapes, so some per cent too high while a scrape is missing at either end.",
            [increase_by("kind", "coupon_shard_moves_total")],
            colors={"handed_off": BLUE, "received": GREEN, "claimed": YELLOW, "released": GREY, "lost": RED},
        ),
        lines(
            "Time without an owner (longest), by kind",
            "taken_over: from the last beat of the dead node to the claim. handed_off: from the moment the "
            "shard is closed until its row names the next owner. The upper bound of the bucket that holds the "
            "longest. If a dead node's machine refuses connections, its shards are claimed before its lease is "
            "over.",
            [quantile_by("kind", 1, "coupon_shard_move_duration_seconds")],
            "s",
            colors={"taken_over": ORANGE, "handed_off": BLUE},
        ),
        lines(
            "Highest epoch of all shards",
            "Each change of a shard's owner raises its epoch by one. A steady rise means that shards keep "
            "moving.",
            [Query(f"max(coupon_shard_epoch_max{{{CLUSTER}}} {CURRENT})", "highest epoch")],
            minimum=None,
            decimals=0,
        ),
        lines(
            "Live nodes in the database, by state",
            "Joining, ready and leaving nodes, as the nodes last read the rows.",
            [Query(f"max by (state) (coupon_cluster_nodes{{{CLUSTER}}} {CURRENT})", "{{state}}")],
            stacked=True,
            colors={"ready": GREEN, "joining": BLUE, "leaving": YELLOW},
            decimals=0,
        ),
        lines(
            "Claims of shards in the last minute, by node",
            "Includes claims by which a node raises the epoch of its own shard.",
            [increase_by("instance", "coupon_shard_claims_total")],
        ),
        lines(
            "Beats a second, by result",
            "Beats that nodes write to the database. After a failed beat a node has less of its lease left.",
            [rate_by("result", "coupon_beats_total")],
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
            "Peers to which the node has a link. Expected to be one less than the number of nodes.",
            [of_nodes("coupon_peers_up")],
            anchor="couponpeermissing",
            decimals=0,
        ),
        lines(
            "Round trip to a peer (p99), by node",
            "From a heartbeat to its answer.",
            [quantile_by("instance", 0.99, "coupon_peer_round_trip_seconds")],
            "s",
            anchor="couponpeermissing",
        ),
        lines(
            "Requests in flight to peers, by node",
            "Requests that were sent to peers and are not answered.",
            [of_nodes("coupon_peer_requests_in_flight")],
            stacked=True,
            anchor="couponqueuenearbound",
            decimals=0,
        ),
        lines(
            "Bytes a second, by direction",
            "Bytes of frames between nodes.",
            [rate_by("direction", "coupon_peer_bytes_total")],
            "binBps",
        ),
        lines(
            "Requests in a frame (mean), by node",
            "Requests that were sent in one frame. Busy links send many together.",
            [mean_of_nodes("coupon_peer_frame_requests")],
        ),
        lines(
            "Requests that wait for a moving shard, by node",
            "When the shard has moved, they are sent to its next owner.",
            [of_nodes("coupon_requests_waiting_for_owner")],
            stacked=True,
            anchor="couponshardwithoutowner",
            decimals=0,
        ),
    )


def never():
    """Panels about what should not happen."""
    refused = increase_by("reason", "coupon_peer_refused_total")
    return (
        section("Never expected: these stay at 0, unless a node stops or dies"),
        lines(
            "Never expected: contradictions, database backwards, panics",
            "How often in the time shown: the store contradicted an owner; the database lost what it had "
            "confirmed; an owner panicked. Not even when a node dies.",
            [
                Query(f"sum(increase(coupon_contradictions_total{{{CLUSTER}}}[$__range]))", "contradictions"),
                Query(
                    f"sum(increase(coupon_database_went_backwards_total{{{CLUSTER}}}[$__range]))", "backwards"
                ),
                Query(f"sum(increase(coupon_owner_panics_total{{{CLUSTER}}}[$__range]))", "panics"),
            ],
            thresholds=steps((1, RED)),
            decimals=0,
            anchor="couponcontradiction",
        ),
        lines(
            "Never expected: refused frames and connections",
            "Frames of peers that were dropped, and connections and links that were refused or given up, in "
            "the last minute, by reason. A node that stops or dies causes some. Nothing is shown while there "
            "are none.",
            [Query(f"{refused.expr} > 0", refused.legend)],
            anchor="couponpeermissing",
            empty="None were refused",
        ),
        lines(
            "Rows that the fence refused, in the last minute",
            "Rows that the database refused because the shard has another owner or epoch. "
            "Expected only at a take-over.",
            [increase_by("instance", "coupon_fenced_rows_total")],
            anchor="couponrowsfenced",
        ),
    )


def build():
    """Returns the dashboard."""
    board = frame("firstcome-cluster", "Firstcome: Cluster", "Nodes, shards, and the links between nodes.")
    for panel in (*state(), *ownership(), *links(), *never()):
        add(board, panel)
    return board
