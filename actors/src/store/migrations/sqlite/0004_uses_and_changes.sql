-- What a coupon is for, pairs for programs of administrators, the most that a percentage takes off, the end of use, the time zone in which
-- the days of use end, and whether a user may have any number. Without a limit, per_user_limit is 100, to which a node of the previous release
-- keeps.
ALTER TABLE coupons ADD COLUMN description TEXT;
ALTER TABLE coupons ADD COLUMN metadata TEXT;
ALTER TABLE coupons ADD COLUMN max_discount INTEGER;
ALTER TABLE coupons ADD COLUMN use_until INTEGER;
ALTER TABLE coupons ADD COLUMN time_zone TEXT;
ALTER TABLE coupons ADD COLUMN no_user_limit INTEGER NOT NULL DEFAULT 0;
