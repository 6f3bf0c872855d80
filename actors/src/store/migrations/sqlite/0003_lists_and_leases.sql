-- User ids and keys became longer, which needs no change here: SQLite's texts have no width.
-- The keys of a coupon's latest changes, one a line, by which its owner knows a repeated change; written by the change itself.
ALTER TABLE coupons ADD COLUMN change_keys TEXT;
