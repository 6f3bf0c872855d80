-- User ids and keys became longer, which needs no change here: SQLite's texts have no width.
-- The keys of a coupon's latest changes, one a line, by which its owner knows a repeated change; written by the change itself.
ALTER TABLE coupons ADD COLUMN change_keys TEXT;

-- A node's lease in microseconds, by which others judge it, and the incarnation whose lease that is: a node of an earlier release writes neither.
-- 0 if unknown. When a row was first seen ended, in seconds since 1970, so that it can be removed a day later.
ALTER TABLE nodes ADD COLUMN lease INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN lease_of INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN ended_at INTEGER NOT NULL DEFAULT 0;

-- Lists of coupons by phase. A phase depends on the clock and on what is issued, so no column has it: the index has what it depends on, by
-- status and in the order of the lists, so that a search examines coupons without reading their rows.
CREATE INDEX by_phase ON coupons (status, id, starts_at, ends_at, total_quantity);
