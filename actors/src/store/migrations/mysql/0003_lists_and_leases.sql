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
