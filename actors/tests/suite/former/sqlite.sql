-- reads a coupon: 1
SELECT c.id, c.title, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, c.per_user_limit,
       c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, c.updated_at, c.change_keys
  FROM coupons AS c WHERE c.id = {coupon}

-- reads a page of its issuances: 1
SELECT count(*) AS row_count, group_concat(line, char(10)) AS lines
  FROM (SELECT concat_ws(' ', sequence, nth, issued_at, coalesce(expires_at, '-'), user_id, request_key)
               AS line
          FROM issuances
         WHERE coupon_id = {coupon} AND sequence > 0
         ORDER BY sequence
         LIMIT 2000)

-- stores issuances of one coupon: 2
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at)
SELECT c.id, row.value ->> 0, row.value ->> 1, row.value ->> 2, row.value ->> 3, row.value ->> 4,
       row.value ->> 5
  FROM jsonb_each('[[{shard},{epoch},{owner},{coupon},4,1,[[3,"user-3",1,"key-3",1795780800000004,1798372800000004],[4,"user-4",1,"key-4",1795780800000005,1798372800000005]]]]') AS portion
 CROSS JOIN shards AS s
    ON s.shard_id = portion.value ->> 0 AND s.epoch = portion.value ->> 1 AND s.owner = portion.value ->> 2
 CROSS JOIN coupons AS c
    ON c.id = portion.value ->> 3
   AND (c.total_quantity IS NULL OR portion.value ->> 4 <= c.total_quantity)
   AND portion.value ->> 5 <= c.per_user_limit
 CROSS JOIN jsonb_each(portion.value, '$[6]') AS row

-- stores issuances of several coupons, and none under another epoch: 2
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at)
SELECT c.id, row.value ->> 0, row.value ->> 1, row.value ->> 2, row.value ->> 3, row.value ->> 4,
       row.value ->> 5
  FROM jsonb_each('[[{shard},{epoch},{owner},{coupon},5,2,[[5,"user-1",2,"key-5",1795780800000006,null]]],[{other_shard},{other_epoch},{owner},{other},1,1,[[1,"user-1",1,"key-1",1795780800000002,null]]],[{shard},-1,{owner},{coupon},6,1,[[6,"user-6",1,"key-6",1795780800000007,null]]]]') AS portion
 CROSS JOIN shards AS s
    ON s.shard_id = portion.value ->> 0 AND s.epoch = portion.value ->> 1 AND s.owner = portion.value ->> 2
 CROSS JOIN coupons AS c
    ON c.id = portion.value ->> 3
   AND (c.total_quantity IS NULL OR portion.value ->> 4 <= c.total_quantity)
   AND portion.value ->> 5 <= c.per_user_limit
 CROSS JOIN jsonb_each(portion.value, '$[6]') AS row

-- reads back a batch: 2
SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM issuances WHERE coupon_id = {coupon} AND sequence BETWEEN 3 AND 4 ORDER BY sequence

-- finds whether users of a batch have other issuances: 1
SELECT EXISTS (
    SELECT 1
      FROM jsonb_each('[[{shard},{epoch},{owner},{coupon},5,2,[[5,"user-1",2,"key-5",1795780800000006,null]]]]', '$[0][6]') AS row
     CROSS JOIN issuances AS i
        ON i.user_id = row.value ->> 1 AND i.coupon_id = {coupon} AND i.nth = row.value ->> 2)

-- stores a change: 1
UPDATE coupons
   SET title = 'changed', discount_kind = 'rate', discount_value = 20, min_order_amount = NULL, total_quantity = 50,
       starts_at = NULL, ends_at = NULL, use_within_days = 7, status = 'paused', version = 2, updated_at = 1795780800000008,
       change_keys = NULL
 WHERE id = {coupon}
   AND version = 1
   AND EXISTS (SELECT 1 FROM shards WHERE shard_id = {shard} AND epoch = {epoch} AND owner = {owner})
   AND (50 IS NULL
        OR 50 >= max(5, coalesce((SELECT max(sequence) FROM issuances WHERE coupon_id = {coupon}), 0)))

-- stores no change of another version: 0
UPDATE coupons
   SET title = 'again', discount_kind = NULL, discount_value = NULL, min_order_amount = NULL, total_quantity = 50,
       starts_at = NULL, ends_at = NULL, use_within_days = 7, status = 'paused', version = 2, updated_at = 1795780800000008,
       change_keys = NULL
 WHERE id = {coupon}
   AND version = 1
   AND EXISTS (SELECT 1 FROM shards WHERE shard_id = {shard} AND epoch = {epoch} AND owner = {owner})
   AND (50 IS NULL
        OR 50 >= max(5, coalesce((SELECT max(sequence) FROM issuances WHERE coupon_id = {coupon}), 0)))

-- creates a coupon: 1
INSERT INTO coupons (title, discount_kind, discount_value, min_order_amount, total_quantity, per_user_limit,
                     starts_at, ends_at, use_within_days, status, version, created_at, updated_at,
                     creation_key, creation_body)
VALUES ('of before', 'amount', 500, NULL, 10, 1, NULL, NULL, NULL, 'open', 1, 1795780800000001, 1795780800000001,
        'key-of-before', '{"title":"of before","discount_kind":"amount","discount_value":500,"total_quantity":10,"per_user_limit":1,"status":"open"}')
    ON CONFLICT (creation_key) DO NOTHING

-- finds the coupon that a key created: 1
SELECT c.id, c.title, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, c.per_user_limit,
       c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, c.updated_at, coalesce((SELECT max(sequence) FROM issuances WHERE coupon_id = c.id), 0) AS issued, c.creation_body FROM coupons AS c WHERE c.creation_key = 'key-of-before'

-- searches for coupons that are live: 2
SELECT c.id, c.title, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, c.per_user_limit,
       c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, c.updated_at, coalesce((SELECT max(sequence) FROM issuances WHERE coupon_id = c.id), 0) AS issued FROM (SELECT c.id FROM coupons AS c INDEXED BY by_phase WHERE c.status = 'open' AND c.id < 9223372036854775807 AND c.id >= 0 AND (c.starts_at IS NULL OR c.starts_at <= 1795780800000009) AND (c.ends_at IS NULL OR c.ends_at > 1795780800000009) AND (SELECT sequence FROM issuances WHERE coupon_id = c.id AND sequence = c.total_quantity) IS NULL ORDER BY c.id DESC LIMIT 20) AS found CROSS JOIN coupons AS c ON c.id = found.id

-- reads an issuance: 1
SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM issuances WHERE coupon_id = {coupon} AND sequence = 5

-- reads the issuances of a user: 3
SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM issuances
 WHERE user_id = 'user-1' AND coupon_id BETWEEN 0 AND 9223372036854775807
   AND (NULL IS NULL OR (issued_at, coupon_id, sequence) < (NULL, NULL, NULL))
 ORDER BY issued_at DESC, coupon_id DESC, sequence DESC LIMIT 20

-- reads the issuances of a user of one coupon: 2
SELECT coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at FROM issuances WHERE user_id = 'user-1' AND +coupon_id = {coupon} AND sequence > 0 ORDER BY sequence LIMIT 20

-- takes the schema for one version newer, and its own migrations for unchanged: 3
SELECT version, checksum, success FROM firstcome_migrations
 WHERE success AND (version, lower(hex(substr(checksum, 1, 8)))) IN (VALUES (1, 'a6ec7f9d8b9f379b'), (2, '1b2d95785c13048a'), (3, '36639514d54d5014'))
   AND (SELECT max(version) FROM firstcome_migrations) <= 3 + 1
