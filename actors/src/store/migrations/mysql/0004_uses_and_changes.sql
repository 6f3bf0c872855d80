-- What a coupon is for, pairs for programs of administrators, the most that a percentage takes off, the end of use, the time zone in which
-- the days of use end, and whether a user may have any number. Without a limit, per_user_limit is 100, to which a node of the previous release
-- keeps. New columns are at the end, so that no row is written.
--
-- A migration that was cut short is run again, and only MariaDB has ADD COLUMN IF NOT EXISTS.
SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'coupons' AND COLUMN_NAME = 'no_user_limit') = 0,
    'ALTER TABLE coupons ADD COLUMN description TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, ADD COLUMN metadata MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, ADD COLUMN max_discount BIGINT, ADD COLUMN use_until BIGINT, ADD COLUMN time_zone VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin, ADD COLUMN no_user_limit TINYINT NOT NULL DEFAULT 0',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;

-- A user without a limit may have more issuances of one coupon than a TINYINT counts. Beyond 100, which no limit exceeds, issuances have no
-- nth; the key lets any number of them be. The server builds the table anew beside issuing, which LOCK = NONE demands. A wider type would be
-- copied, for which issuing would wait. MariaDB forgets a condition that is not repeated.
SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'issuances' AND COLUMN_NAME = 'nth' AND IS_NULLABLE = 'NO') = 1,
    'ALTER TABLE issuances MODIFY nth TINYINT /*M! CHECK (nth >= 1) */, LOCK = NONE',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;

-- What became of issuances: rows are only added, dense in each coupon. A row has the counts of its coupon after it, so that the last one tells
-- them: how many issuances are reserved, redeemed and revoked, and how many were given back to the quantity. lapses_at is when the hold lapses
-- that a use begins, or that was the latest use of its issuance before it.
CREATE TABLE IF NOT EXISTS uses (
    coupon_id     BIGINT       NOT NULL,
    use_sequence  BIGINT       NOT NULL CHECK (use_sequence >= 1),
    sequence      BIGINT       NOT NULL CHECK (sequence >= 1),
    kind          VARCHAR(8)   NOT NULL CHECK (kind IN ('reserved', 'redeemed', 'released', 'refunded', 'revoked')),
    order_id      VARCHAR(64),
    order_amount  BIGINT,
    discount      BIGINT,
    hold_until    BIGINT,
    returns       TINYINT      NOT NULL,
    reason        TEXT         CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    author        VARCHAR(144) NOT NULL,
    used_at       BIGINT       NOT NULL,
    reserved      BIGINT       NOT NULL,
    redeemed      BIGINT       NOT NULL,
    revoked       BIGINT       NOT NULL,
    returned      BIGINT       NOT NULL,
    lapses_at     BIGINT,
    PRIMARY KEY (coupon_id, use_sequence),
    -- Finds what became of one issuance.
    KEY by_issuance (coupon_id, sequence, use_sequence),
    -- Counts the holds that have not lapsed: reservations that lapse later, without those that another use follows.
    KEY by_lapse (coupon_id, lapses_at, kind)
) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin;

-- The audit log: a row for each version of a coupon that a change made, with who made it and what it asked for. A row without a time is empty:
-- the statement that stores a change fills it, as an UPDATE cannot add one. Who made the coupon itself, and what was asked for, is in its row.
-- Rows of both that nodes of the previous release made have neither.
CREATE TABLE IF NOT EXISTS coupon_changes (
    coupon_id   BIGINT NOT NULL,
    version     BIGINT NOT NULL CHECK (version >= 1),
    changed_at  BIGINT,
    author      VARCHAR(133) CHARACTER SET ascii COLLATE ascii_bin,
    asked       MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,
    PRIMARY KEY (coupon_id, version)
) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin;
SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'coupons' AND COLUMN_NAME = 'created_as') = 0,
    'ALTER TABLE coupons ADD COLUMN created_by VARCHAR(133) CHARACTER SET ascii COLLATE ascii_bin, ADD COLUMN created_as MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;

-- The secrets under which codes of issuances are signed, in hexadecimal. Rows are only added. Times are in seconds, by the clock of the database.
CREATE TABLE IF NOT EXISTS code_secrets (
    number   INT      NOT NULL PRIMARY KEY CHECK (number >= 1),
    secret   CHAR(64) NOT NULL,
    made_at  BIGINT   NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin;
