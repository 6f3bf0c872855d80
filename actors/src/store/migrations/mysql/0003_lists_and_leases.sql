-- User ids have up to 128 visible characters, keys up to 255: identity providers and clients make longer ones than 64. Lengths up to 255 bytes
-- are stored alike, so this changes no row and takes no time. A migration that was cut short is run again, and MODIFY bears that.
ALTER TABLE issuances
    MODIFY user_id VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    MODIFY request_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL;
ALTER TABLE coupons
    MODIFY creation_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL;
