"""The dashboard of nodes: what they use, what their queues hold, and how their database answers."""

from panels import (
    BLUE,
    GREEN,
    NODES,
    ORANGE,
    RED,
    YELLOW,
    Query,
    add,
    bars,
    frame,
    increase_by,
    lines,
    mean_of_nodes,
    number,
    of_nodes,
    quantile,
    quantile_by,
    rate,
    rate_by,
    rows,
    section,
    steps,
)


def machine():
    """Panels about processor, memory and runtime."""
    build = f"coupon_build_info{{{NODES}}}"
    return (
        rows(
            "Which build runs where",
            "Version and commit of each node.",
            build,
            width=12,
            height=5,
            hidden=("Value", "job"),
            order=("instance", "version", "commit"),
        ),
        number(
            "Running for (shortest)",
            "Time since the last start of any node. Short after a restart.",
            f"time() - max(process_start_time_seconds{{{NODES}}} and on (job, instance) {build})",
            "s",
            height=5,
            anchor="couponrestartloop",
        ),
        number(
            "File descriptors (fullest)",
            "Open file descriptors, of those allowed.",
            f"max(process_open_fds{{{NODES}}} / process_max_fds{{{NODES}}})",
            "percentunit",
            height=5,
            thresholds=steps((0.6, YELLOW), (0.8, RED)),
            anchor="couponfiledescriptors",
        ),
        number(
            "Certificates end in (only with TLS)",
            "Time until the first certificate ends. Nothing is shown without TLS.",
            f"min(coupon_tls_certificate_expiry_timestamp_seconds{{{NODES}}}) - time()",
            "s",
            height=5,
            thresholds=steps((172800, YELLOW), (1209600, GREEN), base=RED),
            empty="No TLS",
            anchor="couponcertificateends",
        ),
        section("Machine"),
        lines(
            "Processors used, by node",
            "1 is one processor.",
            [Query(rate("process_cpu_seconds_total"), "{{instance}}")],
        ),
        lines(
            "Resident memory, by node",
            "An idle node uses some 40 MB. Each issuance of a loaded coupon adds less than 100 bytes.",
            [of_nodes("process_resident_memory_bytes")],
            "bytes",
        ),
        lines(
            "Busy workers of the runtime, by node",
            "Share of time for which the runtime's threads work. Near 100 % the node is at its limit.",
            [
                Query(
                    f"{rate('coupon_runtime_busy_seconds_total')} / coupon_runtime_workers{{{NODES}}}",
                    "{{instance}}",
                )
            ],
            "percentunit",
            maximum=1,
        ),
        lines(
            "Live tasks of the runtime, by node",
            "Tasks that the runtime runs: some for each connection and each request.",
            [of_nodes("coupon_runtime_live_tasks")],
            decimals=0,
        ),
        lines(
            "Tasks in the runtime's global queue, by node",
            "Tasks that wait for a worker.",
            [of_nodes("coupon_runtime_global_queue_depth")],
            decimals=0,
        ),
        lines(
            "Times a second that a worker went to sleep, by node",
            "Low on an idle node, high under moderate load, low again at the limit.",
            [Query(rate("coupon_runtime_parks_total"), "{{instance}}")],
            "ops",
        ),
    )


def queues():
    """Panels about bounded queues, connections and owners."""
    fullest = f"max by (queue) (coupon_queue_length{{{NODES}}} / coupon_queue_length_max{{{NODES}}})"
    return (
        section("Queues, connections, owners"),
        bars(
            "How full each queue is now",
            "Length of each queue divided by its bound, on the node where it is fullest. At the bound the "
            "node answers 503 OVERLOADED. What was before now is in the next panel. The runbook says what "
            "each queue holds.",
            fullest,
            "percentunit",
            thresholds=steps((0.5, YELLOW), (0.8, RED)),
            anchor="couponqueuenearbound",
            maximum=1,
            legend="{{queue}}",
        ),
        lines(
            "How full each queue was, on the fullest node",
            "Length of each queue divided by its bound, as each scrape finds it: the maximum over the selected "
            "nodes.",
            [Query(fullest, "{{queue}}")],
            "percentunit",
            thresholds=steps((0.8, RED)),
            anchor="couponqueuenearbound",
        ),
        lines(
            "Refused because a queue was full, a second",
            "Requests that were answered 503 OVERLOADED at once, by the bound that was reached. Expected "
            "to stay at 0.",
            [rate_by("bound", "coupon_requests_refused_total")],
            "reqps",
            anchor="couponrequestsrefused",
        ),
        lines(
            "HTTP connections, by node",
            "Open connections.",
            [of_nodes("coupon_http_connections")],
            anchor="couponqueuenearbound",
            decimals=0,
        ),
        lines(
            "Connections closed or refused by the server, a second",
            "By reason. max: http.connections_max connections were open; client: "
            "limits.client_connections_max of one address were open.",
            [
                rate_by("reason", "coupon_http_connections_cut_total"),
                Query(f"sum({rate('coupon_http_connections_refused_total')})", "max"),
                Query(f"sum({rate('coupon_http_client_connections_refused_total')})", "client"),
            ],
            "ops",
            anchor="couponqueuenearbound",
        ),
        lines(
            "Owners by stage",
            "One owner decides for one coupon. Owners of all selected nodes that serve, are being loaded, "
            "are loaded ahead of a hand-off, or drain.",
            [Query(f"sum by (stage) (coupon_owners{{{NODES}}})", "{{stage}}")],
            stacked=True,
            colors={"serving": GREEN, "loading": BLUE, "loaded_ahead": YELLOW, "draining": ORANGE},
            decimals=0,
        ),
    )


def storing():
    """Panels about lanes, commits and the calls of the database."""
    return (
        section("Storing"),
        lines(
            "Time of a commit: p50, p99 and longest",
            "From sending a batch until it is known to be stored. An issuance takes at least as long. "
            "Commits are counted, not requests: one commit that stalls for a second delays hundreds of "
            "requests, and only the line of the longest shows it. That line is the upper bound of the bucket "
            "with the longest commit.",
            [
                Query(quantile(0.5, "coupon_commit_duration_seconds", "instance"), "p50 {{instance}}"),
                Query(quantile(0.99, "coupon_commit_duration_seconds", "instance"), "p99 {{instance}}"),
                Query(quantile(1, "coupon_commit_duration_seconds", "instance"), "longest {{instance}}"),
            ],
            "s",
            thresholds=steps((0.25, RED)),
            anchor="couponslowcommits",
        ),
        lines(
            "Rows of a batch (mean), by node",
            "Rows that were committed together. Batches grow with load.",
            [mean_of_nodes("coupon_batch_rows")],
        ),
        lines(
            "Lanes at work, and lanes that the database refuses",
            "Each lane stores one batch at a time.",
            [
                Query(f"sum(coupon_lanes{{{NODES}}})", "all"),
                Query(f"sum(coupon_lanes_busy{{{NODES}}})", "busy"),
                Query(f"sum(coupon_lanes_delayed{{{NODES}}})", "refused"),
            ],
            colors={"all": BLUE, "busy": GREEN, "refused": RED},
            anchor="couponwritebacklag",
            decimals=0,
        ),
        lines(
            "Calls of the database (p99), by kind",
            "Time from sending a statement to its result, without waiting for a connection.",
            [quantile_by("call", 0.99, "coupon_store_call_duration_seconds")],
            "s",
            anchor="couponslowcommits",
        ),
        lines(
            "Calls of the database a second, by kind",
            "Under load there are few batches, which are large.",
            [rate_by("call", "coupon_store_call_duration_seconds_count")],
            "ops",
        ),
        lines(
            "Waiting for a connection (p99), by pool",
            "Includes opening or testing the connection.",
            [quantile_by("pool", 0.99, "coupon_store_connection_wait_duration_seconds")],
            "s",
            anchor="couponslowcommits",
        ),
        lines(
            "Connections to the database in use, of the maximum",
            "The fullest node's pool.",
            [
                Query(
                    f"max by (pool) (coupon_store_connections_in_use{{{NODES}}} / "
                    f"coupon_store_connections_max{{{NODES}}})",
                    "{{pool}}",
                )
            ],
            "percentunit",
            maximum=1,
            anchor="couponslowcommits",
        ),
        lines(
            "Failed calls of the database a second, by kind",
            "not_stored: a lock, no connection, a full disk; unknown: the connection was lost, or no answer "
            "came; clash: other rows, or a constraint; unreadable: a missing table, rows that make no "
            "sense. Beats count too (Cluster: Beats a second). Expected to stay at 0.",
            [rate_by("kind", "coupon_store_errors_total")],
            "ops",
            anchor="couponwritebacklag",
        ),
        lines(
            "Batches that were not known as stored, a second",
            "By reason, as in Failed calls of the database. Such a batch is sent again or read back. "
            "Expected to stay at 0.",
            [rate_by("reason", "coupon_write_retries_total")],
            "ops",
            anchor="couponwritebacklag",
        ),
        lines(
            "Loading an owner (longest), by node",
            "Time to read a coupon and its issuances: the upper bound of the bucket with the longest. The first "
            "request for a coupon waits for that. A line ends when no owner was loaded lately.",
            [quantile_by("instance", 1, "coupon_owner_activation_duration_seconds")],
            "s",
        ),
        lines(
            "Reads a second, by source",
            "Reads of coupons and lists, from a copy or from the database. A coupon is read at most once "
            "a second.",
            [Query(f"sum by (what, from) ({rate('coupon_reads_total')})", "{{what}} from {{from}}")],
            "reqps",
        ),
        lines(
            "Lines of the log that were dropped, in the last minute",
            "Expected to stay at 0.",
            [increase_by("instance", "coupon_log_lines_dropped_total")],
            anchor="couponloglinesdropped",
        ),
    )


def build():
    """Returns the dashboard."""
    board = frame("firstcome-node", "Firstcome: Node", "What nodes use, and how full their queues are.")
    for panel in (*machine(), *queues(), *storing()):
        add(board, panel)
    return board
