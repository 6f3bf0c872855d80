#!/usr/bin/env python3
"""Summarises a history of `firstcome-bench load`: answers, the slowest answer, and the longest pause.

A pause of a coupon is a time in which it was requested, but no request for it was answered with an outcome.
It begins with the first request that was sent after an outcome, and ends with the next outcome. The longest
pause is taken over all coupons.

    pauses.py history.jsonl            prints one line
    pauses.py history.jsonl 5.5        also fails if the longest pause is longer than 5.5 s
"""

import collections
import json
import sys

OUTCOMES = (200, 201, 409)


def longest_pause(requests):
    """Returns the longest pause in microseconds.

    Requests are pairs: when it was sent, and when it was answered with an outcome, or None.
    """
    sent = [(sent, 0) for sent, _ in requests]
    events = sorted(sent + [(answered, 1) for _, answered in requests if answered])
    longest, waiting_since = 0, None
    for time, is_outcome in events:
        if is_outcome:
            if waiting_since is not None:
                longest = max(longest, time - waiting_since)
            waiting_since = None
        elif waiting_since is None:
            waiting_since = time
    # Requests after the last outcome.
    if waiting_since is not None:
        longest = max(longest, events[-1][0] - waiting_since)
    return longest


def main():
    by_coupon = collections.defaultdict(list)
    kinds, times, slowest = collections.Counter(), collections.defaultdict(list), 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            operation = json.loads(line).get("issue")
            if operation is None:
                continue
            answer, answered = operation.get("answer"), operation.get("answer_us")
            status = answer["status"] if answer else None
            outcome = answered if status in OUTCOMES else None
            if outcome:
                kind, slowest = "answered", max(slowest, outcome - operation["call_us"])
            elif status == 503:
                kind = f"503 {(answer.get('body') or {}).get('code', 'of the balancer')}"
            else:
                kind = "no answer" if status is None else str(status)
            kinds[kind] += 1
            times[kind].append(operation["call_us"])
            by_coupon[operation["coupon"]].append((operation["call_us"], outcome))
    pause = max((longest_pause(requests) for requests in by_coupon.values()), default=0) / 1e6
    begin = min(min(sent) for sent in times.values())

    def counted_as(kind):
        if kind == "answered":
            return f"{kinds[kind]} answered"
        first, last = ((time - begin) / 1e6 for time in (min(times[kind]), max(times[kind])))
        return f"{kinds[kind]} {kind} (sent {first:.1f} to {last:.1f} s)"

    counted = ", ".join(counted_as(kind) for kind, _ in kinds.most_common())
    print(f"longest pause {pause:.2f} s; slowest answer {slowest / 1e6:.2f} s; {counted}")
    if len(sys.argv) > 2 and pause > float(sys.argv[2]):
        sys.exit(f"a pause of {pause:.2f} s is longer than {sys.argv[2]} s")


if __name__ == "__main__":
    main()
