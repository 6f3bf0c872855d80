-- Ids, keys and names are ASCII and compare byte for byte (BINARY is SQLite's default). Times are microseconds since 1970 in UTC.
-- There is no counter of issuances: how many there are is the highest sequence.

CREATE TABLE coupons (
    -- AUTOINCREMENT: an id is never given twice, whatever becomes of its coupon.
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    title             TEXT    NOT NULL,
    discount_kind     TEXT    CHECK (discount_kind IN ('amount', 'rate')),
    discount_value    INTEGER CHECK (discount_value >= 1),
    min_order_amount  INTEGER CHECK (min_order_amount >= 0),
    total_quantity    INTEGER CHECK (total_quantity >= 1),
    per_user_limit    INTEGER NOT NULL CHECK (per_user_limit BETWEEN 1 AND 100),
    starts_at         INTEGER,
    ends_at           INTEGER,
    use_within_days   INTEGER CHECK (use_within_days >= 1),
    status            TEXT    NOT NULL CHECK (status IN ('open', 'paused', 'closed')),
    version           INTEGER NOT NULL CHECK (version >= 1),
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    -- The request that made it, and what it asked for, to tell a repetition from another use of the key. Never changed.
    creation_key      TEXT    NOT NULL UNIQUE,
    creation_body     TEXT    NOT NULL,
    CHECK ((discount_kind IS NULL) = (discount_value IS NULL)),
    CHECK (starts_at < ends_at)
) STRICT;

-- No foreign key to coupons: the statement that stores issuances joins them, and no coupon is ever deleted.
CREATE TABLE issuances (
    coupon_id    INTEGER NOT NULL,
    sequence     INTEGER NOT NULL CHECK (sequence >= 1),
    user_id      TEXT    NOT NULL,
    nth          INTEGER NOT NULL CHECK (nth >= 1),
    request_key  TEXT    NOT NULL,
    issued_at    INTEGER NOT NULL,
    expires_at   INTEGER,
    PRIMARY KEY (coupon_id, sequence),
    -- Keeps the limit per user, and finds what a user has.
    UNIQUE (user_id, coupon_id, nth)
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
    node_id       TEXT    NOT NULL PRIMARY KEY,
    incarnation   INTEGER NOT NULL,
    beat          INTEGER NOT NULL,
    state         TEXT    NOT NULL CHECK (state IN ('joining', 'ready', 'leaving', 'ended')),
    http          TEXT    NOT NULL,
    cluster       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE shards (
    shard_id  INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL CHECK (epoch >= 0),
    -- The incarnation that owns it, if any does.
    owner     INTEGER
) STRICT;

-- What the cluster was made with; one row.
CREATE TABLE cluster (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    shards  INTEGER NOT NULL,
    hash    TEXT    NOT NULL
) STRICT;
