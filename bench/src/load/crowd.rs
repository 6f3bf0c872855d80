//! Derives user, key and coupon of a request from its number and a seed. The derivation is pure, so a repeat
//! need not look up the request that it repeats.

use std::io::Write as _;

use testkit::ids::CouponId;

/// Maximum length of a run's name. A user id is sixteen digits, a dot and the name, which is well below the
/// service's limit.
pub const NAME_BYTES_MAX: usize = 32;

/// The users who send the requests of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// A new user for each request.
    New,
    /// This many users in turn, each of whom sends many requests with new keys.
    InTurn(u64),
    /// For each request, with a new key, one of this many users and one of the coupons, both drawn at random.
    Drawn(u64),
}

impl Users {
    /// Returns this many users in turn; new users if there is no number.
    pub fn limited_to(number: Option<u64>) -> Self {
        number.map_or(Self::New, Self::InTurn)
    }
}

/// The users of a run.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// The name of the run, which makes its users and keys different from those of other runs.
    pub name: String,
    /// Requests in a million that come from earlier users. Only new users repeat requests.
    pub repeats_ppm: u32,
    /// The users.
    pub users: Users,
    /// The seed of random choices.
    pub seed: u64,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserRequest {
    /// The number of the user.
    pub user: u64,
    /// The number of the key. A request with the same user and the same key is a replay.
    pub key: u64,
}

impl Crowd {
    /// Returns the request with this number.
    pub fn asked(&self, number: u64) -> UserRequest {
        let of_user = |user| UserRequest { user, key: number };
        match self.users {
            Users::New => {}
            Users::InTurn(users) => return of_user(number % users.max(1)),
            Users::Drawn(users) => return of_user(mix(self.seed ^ 2, number) % users.max(1)),
        }
        let (user, repeated) = self.first(number);
        // Half of the repeats replay a request whose answer got lost; the other half want a second coupon.
        let replays = repeated && mix(self.seed ^ 1, number) & 1 == 0;
        UserRequest {
            user,
            key: if replays { user } else { number },
        }
    }

    /// Returns the number of the first request of this request's user, and true if this request is a repeat.
    fn first(&self, number: u64) -> (u64, bool) {
        let mut first = number;
        loop {
            let chance = mix(self.seed, first);
            if first == 0 || chance % 1_000_000 >= u64::from(self.repeats_ppm) {
                return (first, first != number);
            }
            // This may be any earlier request, even if it has no answer yet.
            first = (chance >> 20) % first;
        }
    }

    /// Returns the index of the coupon that is requested. A user who is not drawn always requests the same
    /// one.
    pub fn coupon(&self, asked: UserRequest, coupons: usize) -> usize {
        let number = match self.users {
            Users::New | Users::InTurn(_) => asked.user,
            Users::Drawn(_) => mix(self.seed ^ 3, asked.key),
        };
        // The remainder fits in a usize.
        usize::try_from(number % coupons.max(1) as u64).unwrap_or(0)
    }

    /// Writes the user's id.
    pub fn write_user(&self, asked: UserRequest, out: &mut Vec<u8>) {
        // Real ids are not in order. Ids in order would always be appended to the last page of an index.
        write_hex(asked.user.wrapping_mul(0x9e37_79b9_7f4a_7c15), out);
        out.push(b'.');
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Writes the `Idempotency-Key`.
    pub fn write_key(&self, asked: UserRequest, out: &mut Vec<u8>) {
        write_hex(mix(0, asked.key), out);
        out.push(b'.');
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Writes the whole request into the buffer, which is large enough after the first request.
    pub fn write_request(&self, asked: UserRequest, coupon: CouponId, host: &str, out: &mut Vec<u8>) {
        out.clear();
        // Writing to a Vec does not fail.
        let _ = write!(
            out,
            "POST /v1/coupons/{coupon}/issuances HTTP/1.1\r\nHost: {host}\r\nX-User-Id: "
        );
        self.write_user(asked, out);
        out.extend_from_slice(b"\r\nIdempotency-Key: ");
        self.write_key(asked, out);
        out.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
    }
}

/// Writes sixteen digits.
fn write_hex(number: u64, out: &mut Vec<u8>) {
    out.extend(
        (0..16)
            .rev()
            .map(|place| b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]),
    );
}

/// Returns a pseudo-random number from a seed and a number: SplitMix64, which maps numbers one to one.
pub(super) fn mix(seed: u64, number: u64) -> u64 {
    let mut mixed = number
        .wrapping_add(seed.wrapping_mul(0xd134_2543_de82_ef95))
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    use testkit::ids::{RequestKey, UserId};

    fn crowd(repeats_ppm: u32, users: Users) -> Crowd {
        Crowd {
            name: "0123456789abcdef".repeat(2),
            repeats_ppm,
            users,
            seed: 7,
        }
    }

    #[test]
    fn without_repeats_each_request_has_a_new_user() {
        let crowd = crowd(0, Users::New);
        for number in 0..1_000 {
            assert_eq!(
                crowd.asked(number),
                UserRequest {
                    user: number,
                    key: number
                }
            );
        }
    }

    #[test]
    fn repeats_have_the_wanted_share_and_half_of_them_are_replays() {
        let crowd = crowd(50_000, Users::New);
        let (mut repeats, mut replays, mut first) = (0, 0, HashMap::new());
        for number in 0..100_000 {
            let asked = crowd.asked(number);
            if asked.user == number {
                assert_eq!(asked.key, number);
                first.insert(number, asked.key);
                continue;
            }
            repeats += 1;
            let before = first[&asked.user];
            replays += u32::from(asked.key == before);
            assert!(asked.key == before || asked.key == number);
        }
        assert!((4_500..5_500).contains(&repeats), "{repeats}");
        assert!(
            (repeats * 2 / 5..repeats * 3 / 5).contains(&replays),
            "{replays} of {repeats}"
        );
    }

    #[test]
    fn a_limited_number_of_users_sends_each_request_with_a_new_key() {
        let crowd = crowd(50_000, Users::InTurn(3));
        let asked: Vec<UserRequest> = (0..99).map(|number| crowd.asked(number)).collect();
        assert_eq!(
            asked
                .iter()
                .map(|asked| asked.user)
                .collect::<HashSet<u64>>()
                .len(),
            3
        );
        assert_eq!(
            asked
                .iter()
                .map(|asked| asked.key)
                .collect::<HashSet<u64>>()
                .len(),
            99
        );
    }

    #[test]
    fn user_ids_and_keys_are_valid_and_distinct() {
        let crowd = crowd(0, Users::New);
        let mut seen = HashSet::new();
        for number in (0..1_000).chain([u64::MAX]) {
            let (mut user, mut key) = (Vec::new(), Vec::new());
            crowd.write_user(
                UserRequest {
                    user: number,
                    key: number,
                },
                &mut user,
            );
            crowd.write_key(
                UserRequest {
                    user: number,
                    key: number,
                },
                &mut key,
            );
            let (user, key) = (String::from_utf8(user).unwrap(), String::from_utf8(key).unwrap());
            UserId::parse(&user).unwrap();
            RequestKey::parse(&key).unwrap();
            assert!(seen.insert(user) && seen.insert(key));
        }
        let mut request = b"what was there".to_vec();
        crowd.write_request(
            UserRequest { user: 1, key: 1 },
            CouponId::new(42).unwrap(),
            "a:1",
            &mut request,
        );
        let request = String::from_utf8(request).unwrap();
        assert!(
            request.starts_with(
                "POST /v1/coupons/42/issuances HTTP/1.1\r\nHost: a:1\r\nX-User-Id: 9e3779b97f4a7c15."
            ),
            "{request}"
        );
        assert!(request.ends_with("\r\nContent-Length: 0\r\n\r\n"), "{request}");
    }

    #[test]
    fn a_user_always_requests_the_same_coupon() {
        let crowd = crowd(500_000, Users::New);
        for number in 0..1_000 {
            let asked = crowd.asked(number);
            let first = crowd.coupon(crowd.asked(asked.user), 7);
            assert_eq!(crowd.coupon(asked, 7), first);
        }
    }

    #[test]
    fn drawn_users_come_again_and_ask_for_any_coupon() {
        let crowd = crowd(0, Users::Drawn(20));
        let mut asked_for: HashMap<u64, HashSet<usize>> = HashMap::new();
        for number in 0..2_000 {
            let asked = crowd.asked(number);
            assert_eq!((asked.key, crowd.asked(number)), (number, asked));
            asked_for
                .entry(asked.user)
                .or_default()
                .insert(crowd.coupon(asked, 5));
        }
        assert_eq!(asked_for.len(), 20);
        assert!(
            asked_for.values().all(|coupons| coupons.len() == 5),
            "{asked_for:?}"
        );
        // They do not come in turn.
        let first: HashSet<u64> = (0..20).map(|number| crowd.asked(number).user).collect();
        assert!(first.len() < 20);
    }
}
