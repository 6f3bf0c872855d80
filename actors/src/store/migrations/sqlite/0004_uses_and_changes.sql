-- What a coupon is for, pairs for programs of administrators, the most that a percentage takes off, the end of use, the time zone in which
-- the days of use end, and whether a user may have any number. Without a limit, per_user_limit is 100, to which a node of the previous release
-- keeps.
ALTER TABLE coupons ADD COLUMN description TEXT;
ALTER TABLE coupons ADD COLUMN metadata TEXT;
ALTER TABLE coupons ADD COLUMN max_discount INTEGER;
ALTER TABLE coupons ADD COLUMN use_until INTEGER;
ALTER TABLE coupons ADD COLUMN time_zone TEXT;
ALTER TABLE coupons ADD COLUMN no_user_limit INTEGER NOT NULL DEFAULT 0;

-- What became of issuances: rows are only added, dense in each coupon. A row has the counts of its coupon after it, so that the last one tells
-- them: how many issuances are reserved, redeemed and revoked, and how many were given back to the quantity. lapses_at is when the hold lapses
-- that a use begins, or that was the latest use of its issuance before it.
CREATE TABLE uses (
    coupon_id     INTEGER NOT NULL,
    use_sequence  INTEGER NOT NULL CHECK (use_sequence >= 1),
    sequence      INTEGER NOT NULL CHECK (sequence >= 1),
    kind          TEXT    NOT NULL CHECK (kind IN ('reserved', 'redeemed', 'released', 'refunded', 'revoked')),
    order_id      TEXT,
    order_amount  INTEGER,
    discount      INTEGER,
    hold_until    INTEGER,
    returns       INTEGER NOT NULL,
    reason        TEXT,
    author        TEXT    NOT NULL,
    used_at       INTEGER NOT NULL,
    reserved      INTEGER NOT NULL,
    redeemed      INTEGER NOT NULL,
    revoked       INTEGER NOT NULL,
    returned      INTEGER NOT NULL,
    lapses_at     INTEGER,
    PRIMARY KEY (coupon_id, use_sequence)
) STRICT, WITHOUT ROWID;
-- Finds what became of one issuance. The key of a row ends its entry.
CREATE INDEX by_issuance ON uses (coupon_id, sequence);
-- Counts the holds that have not lapsed: reservations that lapse later, without those that another use follows.
CREATE INDEX by_lapse ON uses (coupon_id, lapses_at, kind) WHERE lapses_at IS NOT NULL;

-- The audit log: a row for each version of a coupon that a change made, with who made it and what it asked for. Who made the coupon itself,
-- and what was asked for, is in its row. Rows of both that nodes of the previous release made have neither.
CREATE TABLE coupon_changes (
    coupon_id   INTEGER NOT NULL,
    version     INTEGER NOT NULL CHECK (version >= 1),
    changed_at  INTEGER NOT NULL,
    author      TEXT,
    asked       TEXT,
    PRIMARY KEY (coupon_id, version)
) WITHOUT ROWID;
ALTER TABLE coupons ADD COLUMN created_by TEXT;
ALTER TABLE coupons ADD COLUMN created_as TEXT;

-- The secrets under which codes of issuances are signed, in hexadecimal. Rows are only added. Times are in seconds.
CREATE TABLE code_secrets (
    number   INTEGER PRIMARY KEY CHECK (number >= 1),
    secret   TEXT    NOT NULL,
    made_at  INTEGER NOT NULL
) STRICT;
