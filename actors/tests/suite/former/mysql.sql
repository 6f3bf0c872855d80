-- reads a coupon: 1
SELECT c.id, c.title, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, c.per_user_limit,
       c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, c.updated_at, c.change_keys
  FROM coupons AS c WHERE c.id = {coupon}

-- reads a page of its issuances: 2
SELECT sequence, user_id, nth, request_key, issued_at, expires_at
  FROM issuances
 WHERE coupon_id = {coupon} AND sequence > 0
 ORDER BY sequence
 LIMIT 8000

-- stores issuances of one coupon: 2
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at) WITH v (q, u, k, t, x) AS (VALUES {row}(3,'user-3','key-3',1795780800000004,1798372800000004),{row}(4,'user-4','key-4',1795780800000005,1798372800000005))
SELECT c.id, v.q, v.u, 1, v.k, v.t, v.x
  FROM shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = {coupon} AND (c.total_quantity IS NULL OR 4 <= c.total_quantity)
   AND 1 <= c.per_user_limit
  STRAIGHT_JOIN v
 WHERE s.shard_id = {shard} AND s.epoch = {epoch} AND s.owner = {owner}

-- stores issuances of several coupons: 2
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at) WITH v (q, u, k, t, n, s, e, c, l, h) AS (VALUES {row}(5,'user-1','key-5',1795780800000006,2,{shard},{epoch},{coupon},5,2),{row}(1,'user-1','key-1',1795780800000002,1,{other_shard},{other_epoch},{other},1,1))
SELECT v.c, v.q, v.u, v.n, v.k, v.t, NULL
  FROM v
  STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) ON s.shard_id = v.s AND s.epoch = v.e AND s.owner = {owner}
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = v.c AND (c.total_quantity IS NULL OR v.l <= c.total_quantity) AND v.h <= c.per_user_limit

-- stores no issuance beyond the limit per user: 0
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at) WITH v (q, u, k, t, n) AS (VALUES {row}(6,'user-1','key-6',1795780800000007,3))
SELECT c.id, v.q, v.u, v.n, v.k, v.t, NULL
  FROM shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = {coupon} AND (c.total_quantity IS NULL OR 6 <= c.total_quantity)
   AND 3 <= c.per_user_limit
  STRAIGHT_JOIN v
 WHERE s.shard_id = {shard} AND s.epoch = {epoch} AND s.owner = {owner}

-- stores no issuance under another epoch: 0
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at) WITH v (q, u, k, t) AS (VALUES {row}(6,'user-6','key-6',1795780800000007))
SELECT c.id, v.q, v.u, 1, v.k, v.t, NULL
  FROM shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = {coupon} AND (c.total_quantity IS NULL OR 6 <= c.total_quantity)
   AND 1 <= c.per_user_limit
  STRAIGHT_JOIN v
 WHERE s.shard_id = {shard} AND s.epoch = {epoch} + 1 AND s.owner = {owner}

-- reads back a batch: 3
WITH v (c, q) AS (VALUES {row}({coupon},3),{row}({coupon},5),{row}({other},1),{row}({other},2)) SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM v STRAIGHT_JOIN issuances FORCE INDEX (PRIMARY)
             ON coupon_id = v.c AND sequence = v.q ORDER BY coupon_id, sequence

-- finds the coupon of a batch whose users have other issuances: 1
WITH v (c, u, n) AS (VALUES {row}({coupon},'user-1',2),{row}({other},'user-2',1)) SELECT DISTINCT i.coupon_id
             FROM v STRAIGHT_JOIN issuances AS i FORCE INDEX (by_user)
             ON i.user_id = CONVERT(v.u USING ascii) COLLATE ascii_bin AND i.coupon_id = v.c AND i.nth = v.n

-- stores a change: 1
UPDATE shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.id = {coupon}
   SET c.title = 'changed', c.discount_kind = 'rate', c.discount_value = 20, c.min_order_amount = NULL, c.total_quantity = 50,
       c.starts_at = NULL, c.ends_at = NULL, c.use_within_days = 7, c.status = 'paused', c.version = 2, c.updated_at = 1795780800000008,
       c.change_keys = NULL
 WHERE s.shard_id = {shard} AND s.epoch = {epoch} AND s.owner = {owner}
   AND c.version = 1
   AND (50 IS NULL
        OR 50 >= GREATEST(5, COALESCE((SELECT MAX(sequence) FROM issuances WHERE coupon_id = {coupon}), 0)))

-- stores no change of another version: 0
UPDATE shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.id = {coupon}
   SET c.title = 'again', c.discount_kind = NULL, c.discount_value = NULL, c.min_order_amount = NULL, c.total_quantity = 50,
       c.starts_at = NULL, c.ends_at = NULL, c.use_within_days = 7, c.status = 'paused', c.version = 2, c.updated_at = 1795780800000008,
       c.change_keys = NULL
 WHERE s.shard_id = {shard} AND s.epoch = {epoch} AND s.owner = {owner}
   AND c.version = 1
   AND (50 IS NULL
        OR 50 >= GREATEST(5, COALESCE((SELECT MAX(sequence) FROM issuances WHERE coupon_id = {coupon}), 0)))

-- creates a coupon: 1
INSERT INTO coupons (title, discount_kind, discount_value, min_order_amount, total_quantity, per_user_limit,
                     starts_at, ends_at, use_within_days, status, version, created_at, updated_at,
                     creation_key, creation_body)
VALUES ('of before', 'amount', 500, NULL, 10, 1, NULL, NULL, NULL, 'open', 1, 1795780800000001, 1795780800000001,
        'key-of-before', '{"title":"of before","discount_kind":"amount","discount_value":500,"total_quantity":10,"per_user_limit":1,"status":"open"}')

-- finds the coupon that a key created: 1
SELECT c.id, c.title, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, c.per_user_limit,
       c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, c.updated_at, (SELECT i.sequence FROM issuances AS i FORCE INDEX FOR ORDER BY (PRIMARY)
                 WHERE i.coupon_id = c.id ORDER BY i.coupon_id DESC, i.sequence DESC LIMIT 1) AS issued, c.creation_body FROM coupons AS c WHERE c.creation_key = 'key-of-before'

-- searches for coupons that are live: 2
SELECT c.id, c.title, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, c.per_user_limit,
       c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, c.updated_at, (SELECT i.sequence FROM issuances AS i FORCE INDEX FOR ORDER BY (PRIMARY)
                 WHERE i.coupon_id = c.id ORDER BY i.coupon_id DESC, i.sequence DESC LIMIT 1) AS issued FROM (SELECT c.id FROM coupons AS c FORCE INDEX (by_phase) WHERE c.status = 'open' AND c.id < 9223372036854775807 AND c.id >= 0 AND (c.starts_at IS NULL OR c.starts_at <= 1795780800000009) AND (c.ends_at IS NULL OR c.ends_at > 1795780800000009) AND (SELECT i.sequence FROM issuances AS i FORCE INDEX (PRIMARY) WHERE i.coupon_id = c.id AND i.sequence = c.total_quantity) IS NULL ORDER BY c.id DESC LIMIT 20) AS found STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.id = found.id

-- reads an issuance: 1
SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM issuances WHERE coupon_id = {coupon} AND sequence = 5

-- reads the issuances of a user: 3
SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM issuances FORCE INDEX (by_user)
 WHERE user_id = 'user-1' AND coupon_id BETWEEN 0 AND 9223372036854775807
 ORDER BY issued_at DESC, coupon_id DESC, sequence DESC LIMIT 20

-- reads the issuances of a user of one coupon: 2
SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM issuances FORCE INDEX (by_user)
 WHERE coupon_id = {coupon} AND sequence > 0 AND user_id = 'user-1'
 ORDER BY sequence LIMIT 20

-- takes the schema for one version newer, and its own migrations for unchanged: 3
SELECT version, checksum, success FROM firstcome_migrations
 WHERE success AND (version, LOWER(HEX(LEFT(checksum, 8)))) IN ((1, '6c3db9ade0f85d05'), (2, '483856ffc3dbc42b'), (3, '57067f00bcca5b31'))
   AND (SELECT MAX(version) FROM firstcome_migrations) <= 3 + 1
