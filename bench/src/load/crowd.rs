//! Who asks for what: from the number of a request, and a seed, to its user, its key and its coupon. Pure,
//! and without memory: a repeat need not look up whom it repeats.

use std::io::Write as _;

use testkit::ids::CouponId;

/// Longest name of a run: with the number before it a user id stays within its 64 bytes.
pub const NAME_BYTES_MAX: usize = 32;

/// Those who ask.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// What makes the users and keys of this run different from those of all others.
    pub name: String,
    /// Requests in a million that come from somebody who has asked before.
    pub repeats_ppm: u32,
    /// Only so many users, who ask again and again with new keys; `None`: each is another.
    pub users: Option<u64>,
    /// What chance is drawn from.
    pub seed: u64,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The number of the user.
    pub user: u64,
    /// The number of the key: the same user with the same key is a replay.
    pub key: u64,
}

impl Crowd {
    /// The request of this number.
    pub fn asked(&self, number: u64) -> Asked {
        if let Some(users) = self.users {
            return Asked {
                user: number % users.max(1),
                key: number,
            };
        }
        let (user, repeated) = self.first(number);
        // Half of those who ask again do not know that they were answered, and replay; the other half hope
        // for a second one.
        let replays = repeated && mix(self.seed ^ 1, number) & 1 == 0;
        Asked {
            user,
            key: if replays { user } else { number },
        }
    }

    /// The number of the user's first request, and whether this one is a repeat.
    fn first(&self, number: u64) -> (u64, bool) {
        let mut first = number;
        loop {
            let chance = mix(self.seed, first);
            if first == 0 || chance % 1_000_000 >= u64::from(self.repeats_ppm) {
                return (first, first != number);
            }
            // Any earlier request, also one that is still on its way.
            first = (chance >> 20) % first;
        }
    }

    /// Which of so many coupons this user wants: each user always the same.
    pub fn coupon(asked: Asked, coupons: usize) -> usize {
        // The remainder is below a usize.
        usize::try_from(asked.user % coupons.max(1) as u64).unwrap_or(0)
    }

    /// Writes the user's id.
    pub fn write_user(&self, asked: Asked, out: &mut Vec<u8>) {
        // Real ids come in no order; ordered ones would always be appended to the same page of an index.
        write_hex(asked.user.wrapping_mul(0x9e37_79b9_7f4a_7c15), out);
        out.push(b'.');
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Writes the `Idempotency-Key`.
    pub fn write_key(&self, asked: Asked, out: &mut Vec<u8>) {
        write_hex(mix(0, asked.key), out);
        out.push(b'.');
        out.extend_from_slice(self.name.as_bytes());
    }

    /// Writes the whole request over what is in the buffer, which is enough memory after the first.
    pub fn write_request(&self, asked: Asked, coupon: CouponId, host: &str, out: &mut Vec<u8>) {
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

/// Sixteen digits.
fn write_hex(number: u64, out: &mut Vec<u8>) {
    out.extend(
        (0..16)
            .rev()
            .map(|place| b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]),
    );
}

/// A number that looks like chance, from a seed and a number: SplitMix64, which maps each number to another.
fn mix(seed: u64, number: u64) -> u64 {
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

    fn crowd(repeats_ppm: u32, users: Option<u64>) -> Crowd {
        Crowd {
            name: "0123456789abcdef".repeat(2),
            repeats_ppm,
            users,
            seed: 7,
        }
    }

    #[test]
    fn without_repeats_everybody_is_somebody_else() {
        let crowd = crowd(0, None);
        for number in 0..1_000 {
            assert_eq!(
                crowd.asked(number),
                Asked {
                    user: number,
                    key: number
                }
            );
        }
    }

    #[test]
    fn repeats_are_as_many_as_wanted_and_half_of_them_replays() {
        let crowd = crowd(50_000, None);
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
    fn a_closed_crowd_has_so_many_users_and_never_the_same_key() {
        let crowd = crowd(50_000, Some(3));
        let asked: Vec<Asked> = (0..99).map(|number| crowd.asked(number)).collect();
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
    fn ids_and_keys_are_such_and_distinct() {
        let crowd = crowd(0, None);
        let mut seen = HashSet::new();
        for number in (0..1_000).chain([u64::MAX]) {
            let (mut user, mut key) = (Vec::new(), Vec::new());
            crowd.write_user(
                Asked {
                    user: number,
                    key: number,
                },
                &mut user,
            );
            crowd.write_key(
                Asked {
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
            Asked { user: 1, key: 1 },
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
    fn a_user_always_wants_the_same_coupon() {
        let crowd = crowd(500_000, None);
        for number in 0..1_000 {
            let asked = crowd.asked(number);
            let first = Crowd::coupon(crowd.asked(asked.user), 7);
            assert_eq!(Crowd::coupon(asked, 7), first);
        }
    }
}
