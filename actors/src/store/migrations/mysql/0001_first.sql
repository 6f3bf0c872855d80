-- One text for MySQL 8.0 and later and MariaDB 10.6 and later.
--
-- Data definition commits as it goes, so a migration that was cut short is run again from its top: every statement must bear that.
--
-- Ids, keys and names are ASCII and compare byte for byte; none holds a space, so that ascii_bin pads them to compare does no harm.
-- Times are microseconds since 1970 in UTC, as whole numbers: no session's time zone, rounding or mode can change what one means, and a row
-- that is sent twice is the same row twice. There is no counter of issuances: how many there are is the highest sequence.

CREATE TABLE IF NOT EXISTS coupons (
    -- InnoDB keeps the next id through restarts: an id is never given twice, whatever becomes of its coupon.
    id                BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    title             VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    discount_kind     VARCHAR(8)   CHECK (discount_kind IN ('amount', 'rate')),
    discount_value    BIGINT       CHECK (discount_value >= 1),
    min_order_amount  BIGINT       CHECK (min_order_amount >= 0),
    total_quantity    BIGINT       CHECK (total_quantity >= 1),
    per_user_limit    TINYINT      NOT NULL CHECK (per_user_limit BETWEEN 1 AND 100),
    starts_at         BIGINT,
    ends_at           BIGINT,
    use_within_days   SMALLINT     CHECK (use_within_days >= 1),
    status            VARCHAR(8)   NOT NULL CHECK (status IN ('open', 'paused', 'closed')),
    version           BIGINT       NOT NULL CHECK (version >= 1),
    created_at        BIGINT       NOT NULL,
    updated_at        BIGINT       NOT NULL,
    -- The request that made it, and what it asked for, to tell a repetition from another use of the key. Never changed.
    creation_key      VARCHAR(64)  NOT NULL,
    creation_body     TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,
    UNIQUE KEY by_creation_key (creation_key),
    CHECK ((discount_kind IS NULL) = (discount_value IS NULL)),
    CHECK (starts_at < ends_at)
) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin;

-- No foreign key to coupons: the statement that stores issuances joins them, and no coupon is ever deleted.
CREATE TABLE IF NOT EXISTS issuances (
    coupon_id    BIGINT      NOT NULL,
    sequence     BIGINT      NOT NULL CHECK (sequence >= 1),
    user_id      VARCHAR(64) NOT NULL,
    nth          TINYINT     NOT NULL CHECK (nth >= 1),
    request_key  VARCHAR(64) NOT NULL,
    issued_at    BIGINT      NOT NULL,
    expires_at   BIGINT,
    PRIMARY KEY (coupon_id, sequence),
    -- Keeps the limit per user, and finds what a user has.
    UNIQUE KEY by_user (user_id, coupon_id, nth)
) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin;

CREATE TABLE IF NOT EXISTS nodes (
    node_id       VARCHAR(64)  NOT NULL PRIMARY KEY,
    incarnation   BIGINT       NOT NULL,
    beat          BIGINT       NOT NULL,
    state         VARCHAR(8)   NOT NULL CHECK (state IN ('joining', 'ready', 'leaving', 'ended')),
    http          VARCHAR(255) NOT NULL,
    cluster       VARCHAR(255) NOT NULL,
    -- So that who ends another locks its own row and that one, and keeps nobody else from beating.
    UNIQUE KEY by_incarnation (incarnation)
) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin;

CREATE TABLE IF NOT EXISTS shards (
    shard_id  SMALLINT NOT NULL PRIMARY KEY,
    epoch     BIGINT   NOT NULL CHECK (epoch >= 0),
    -- The incarnation that owns it, if any does.
    owner     BIGINT
) ENGINE = InnoDB;

-- What the cluster was made with; one row.
CREATE TABLE IF NOT EXISTS cluster (
    id      TINYINT     NOT NULL PRIMARY KEY CHECK (id = 1),
    shards  SMALLINT    NOT NULL,
    hash    VARCHAR(32) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin;
