//! What clients were told, held against what is stored in the end.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use serde_json::Value;

/// A request and its answer, from the first time it was sent.
pub struct Told {
    pub coupon: u64,
    pub user: String,
    pub sent: Instant,
    pub answered: Instant,
    pub status: u16,
    pub body: Value,
}

/// Panics with the first thing that was told and is not so. Every request must have been answered in the end.
pub fn check(told: &[Told], coupon: u64, total_quantity: Option<u64>, per_user_limit: usize, stored: &[Value]) {
    let told: Vec<&Told> = told.iter().filter(|told| told.coupon == coupon).collect();
    for (place, row) in stored.iter().enumerate() {
        assert_eq!(row["sequence"], place as u64 + 1, "a gap or a repetition");
    }
    assert!(total_quantity.is_none_or(|total| stored.len() as u64 <= total), "{} of {total_quantity:?}", stored.len());
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for row in stored {
        *counts.entry(row["user_id"].as_str().unwrap()).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count <= per_user_limit), "more than {per_user_limit} a user");

    let mut known = HashSet::new();
    for told in &told {
        match (told.status, told.body["code"].as_str()) {
            (201, _) => {
                let sequence = told.body["sequence"].as_u64().unwrap();
                assert_eq!(stored.get(sequence as usize - 1), Some(&told.body), "told and not stored");
                assert_eq!(told.body["user_id"], told.user);
                known.insert(sequence);
            }
            (409, Some("ALREADY_ISSUED")) => {
                let issuance = &told.body["issuance"];
                assert!(stored.contains(issuance) && issuance["user_id"] == told.user, "told {issuance}");
                assert_eq!(counts[told.user.as_str()], per_user_limit, "{} was refused more", told.user);
            }
            (409, Some("SOLD_OUT")) => assert_eq!(Some(stored.len() as u64), total_quantity, "told that all are given out"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(known.len(), stored.len(), "something is stored that nobody was told of, though all were answered");
    check_order(&told);
}

/// Whoever was answered before another asked has the smaller number.
fn check_order(told: &[&Told]) {
    let mut issued: Vec<(&Told, u64)> =
        told.iter().filter(|told| told.status == 201).map(|told| (*told, told.body["sequence"].as_u64().unwrap())).collect();
    let mut answered = issued.clone();
    issued.sort_by_key(|(told, _)| told.sent);
    answered.sort_by_key(|(told, _)| told.answered);
    let (mut answered, mut highest) = (answered.into_iter().peekable(), 0);
    for (told, sequence) in issued {
        while let Some((_, earlier)) = answered.next_if(|(earlier, _)| earlier.answered < told.sent) {
            highest = highest.max(earlier);
        }
        assert!(sequence > highest, "{sequence} was asked for after {highest} was answered");
    }
}
