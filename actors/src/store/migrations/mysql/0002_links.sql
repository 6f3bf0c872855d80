-- Whom a node is linked to: incarnations in decimal, separated by commas; room for 64, as many as a row may name.
--
-- A migration that was cut short is run again, and only MariaDB has ADD COLUMN IF NOT EXISTS.
SET @statement = IF(
    (SELECT COUNT(*) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'nodes' AND COLUMN_NAME = 'links') = 0,
    'ALTER TABLE nodes ADD COLUMN links VARCHAR(1088) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT ''''',
    'DO 0');
PREPARE statement FROM @statement;
EXECUTE statement;
DEALLOCATE PREPARE statement;
