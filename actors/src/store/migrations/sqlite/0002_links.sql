-- Whom a node is linked to: incarnations in decimal, separated by commas.
ALTER TABLE nodes ADD COLUMN links TEXT NOT NULL DEFAULT '';
