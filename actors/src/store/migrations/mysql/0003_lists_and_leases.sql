-- User ids have up to 128 visible characters, keys up to 255: identity providers and clients make longer ones than 64. Lengths up to 255 bytes
-- are stored alike, so this changes no row and takes no time. A migration that was cut short is run again, and MODIFY bears that.
ALTER TABLE issuances
    MODIFY user_id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    MODIFY request_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL;
ALTER TABLE coupons
    MODIFY creation_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL;
-- The keys of a coupon's latest changes, one a line, by which its owner knows a repeated change; written by the change itself.
SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'coupons' AND COLUMN_NAME = 'change_keys') = 0,
    'ALTER TABLE coupons ADD COLUMN change_keys TEXT CHARACTER SET ascii COLLATE ascii_bin',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;

-- A node's lease in microseconds, by which others judge it, and the incarnation whose lease that is: a node of an earlier release writes neither.
-- 0 if unknown. When a row was first seen ended, in seconds since 1970 by the clock of the database, so that it can be removed a day later.
--
-- A migration that was cut short is run again, and only MariaDB has ADD COLUMN IF NOT EXISTS.
SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'nodes' AND COLUMN_NAME = 'ended_at') = 0,
    'ALTER TABLE nodes ADD COLUMN lease BIGINT NOT NULL DEFAULT 0, ADD COLUMN lease_of BIGINT NOT NULL DEFAULT 0, ADD COLUMN ended_at BIGINT NOT NULL DEFAULT 0',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;

-- Lists of coupons by phase. A phase depends on the clock and on what is issued, so no column has it: the index has what it depends on, by
-- status and in the order of the lists, so that a search examines coupons without reading their rows.
--
-- A migration that was cut short is run again, and only MariaDB has CREATE INDEX IF NOT EXISTS.
SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'coupons' AND INDEX_NAME = 'by_phase') = 0,
    'CREATE INDEX by_phase ON coupons (status, id, starts_at, ends_at, total_quantity)',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;
