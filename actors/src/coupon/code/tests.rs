use proptest::prelude::*;

use super::*;

fn secret(number: u32, age: u64) -> CodeSecret {
    let key = format!("{number:064x}");
    CodeSecret::new(number, Duration::from_secs(age), &key).unwrap()
}

fn secrets(numbers: std::ops::RangeInclusive<u32>) -> CodeSecrets {
    let secrets: Vec<CodeSecret> = numbers.map(|number| secret(number, 600)).collect();
    CodeSecrets::new(&secrets).unwrap()
}

fn id(coupon: u64, sequence: u64) -> IssuanceId {
    IssuanceId {
        coupon: CouponId::new(coupon).unwrap(),
        sequence: Sequence::new(sequence),
    }
}

fn find(secrets: &CodeSecrets, text: &str) -> Option<IssuanceId> {
    secrets.find(&TypedCode::read(text).unwrap())
}

/// A number below 2^53 with any number of bits.
fn numbers() -> impl Strategy<Value = u64> {
    (1..=ID_MAX, 0..53_u32).prop_map(|(number, shorter)| (number >> shorter).max(1))
}

proptest! {
    #[test]
    fn every_issuance_has_one_code_and_is_found_by_it(coupon in numbers(), sequence in numbers()) {
        let secrets = secrets(1..=1);
        let code = secrets.code(id(coupon, sequence));
        prop_assert_eq!(find(&secrets, code.as_str()), Some(id(coupon, sequence)));
        let longest = bits_of(coupon) + bits_of(sequence);
        let chars = match longest {
            ..=32 => 20,
            33..=51 => 24,
            52..=71 => 28,
            72..=91 => 32,
            _ => 36,
        };
        prop_assert_eq!(code.as_str().len(), chars);
    }

    #[test]
    fn a_code_with_one_wrong_character_is_no_code(
        coupon in numbers(), sequence in numbers(), at in 0..36_usize, other in 1..32_u8,
    ) {
        let secrets = secrets(1..=2);
        let code = secrets.code(id(coupon, sequence));
        let mut text = code.as_str().as_bytes().to_vec();
        let at = at % text.len();
        let digit = digit(text[at]).unwrap();
        text[at] = ALPHABET[usize::from((digit + other) % 32)];
        prop_assert_eq!(find(&secrets, std::str::from_utf8(&text).unwrap()), None);
    }
}

/// A change of these codes would make those that people have wrong.
#[test]
fn codes_are_pinned() {
    let secrets = secrets(1..=1);
    let codes = [
        id(1, 1),
        id(42, 17),
        id(1_000, 4_194_303),
        id(1_000, 4_194_304),
        id(ID_MAX, ID_MAX),
    ]
    .map(|id| secrets.code(id).to_string());
    assert_eq!(codes, PINNED);
}

/// Computed by another program.
const PINNED: [&str; 5] = [
    "0000000GGGYTHC1FGYHH",
    "5A00008N9NQQQHWBTRTF",
    "9YHZZZZTZ99XD27XJMQ6",
    "4Z80002000083EA7HXCR84QD",
    "TFZZZZZZZZZW3ZZZZZZZZZZZKFA1K1F2QCCZ",
];

#[test]
fn a_code_is_read_without_regard_to_case_dashes_and_letters_that_look_alike() {
    let secrets = secrets(1..=1);
    let mut seen = String::new();
    for sequence in 1..=40 {
        let (id, code) = (id(7, sequence), secrets.code(id(7, sequence)));
        let code = code.as_str();
        seen.push_str(code);
        let grouped = format!("-{}-{}--{}-", &code[..4], &code[4..9], &code[9..]);
        for text in [
            code.to_ascii_lowercase(),
            grouped,
            code.replace('0', "O").replace('1', "I"),
            code.replace('0', "o").replace('1', "l"),
            code.replace('1', "L").replace('1', "i"),
        ] {
            assert_eq!(find(&secrets, &text), Some(id), "{text}");
        }
    }
    assert!(seen.contains('0') && seen.contains('1') && !seen.contains(['I', 'L', 'O', 'U']));
}

#[test]
fn a_text_that_may_be_meant_as_a_code_is_a_wrong_one() {
    let secrets = secrets(1..=1);
    let code = secrets.code(id(42, 17)).to_string();
    let wrong = [
        code[1..].to_owned(),
        format!("{code}0"),
        format!("{code}0000"),
        code[..10].to_owned(),
        code.replace(&code[19..], "U"),
        "0".repeat(20),
        "Z".repeat(36),
        "Z".repeat(40),
    ];
    for text in wrong {
        assert_eq!(find(&secrets, &text), None, "{text}");
    }
    for text in [
        "",
        "42-17",
        "abc",
        "-",
        &code[..9],
        &"0".repeat(41),
        &"-".repeat(90),
    ] {
        assert!(TypedCode::read(text).is_none(), "{text}");
    }
    for odd in [" ", "%", "é", "_", "\0", "–"] {
        for text in [
            format!("{code}{odd}"),
            format!("{odd}{code}"),
            format!("{}{odd}{}", &code[..4], &code[4..]),
            format!("{}{odd}{}", &code[..4], &code[5..]),
        ] {
            assert_eq!(find(&secrets, &text), None, "{text}");
        }
        assert!(TypedCode::read(&format!("42-17{odd}")).is_none(), "{odd}");
        assert!(TypedCode::read(&odd.repeat(20)).is_none(), "{odd}");
    }
}

#[test]
fn a_longer_code_than_an_issuance_needs_is_wrong() {
    let secrets = secrets(1..=1);
    let short = id(42, 17);
    let signature = signature(&secrets.signers[0], short);
    // 6 bits that say that the coupon has 6, and 5 of them without the highest.
    let bits = (5_u128 << 5 | (42 - 32)) << (Packed::room(24) - 6) | 17;
    let long = Packed { bits, chars: 24 }.write(signature);
    assert_eq!(find(&secrets, long.as_str()), None);
    assert_eq!(
        find(&secrets, Packed::of(short).write(signature).as_str()),
        Some(short)
    );
    // The width is that of a longer coupon than any, or the sequence is 0.
    for bits in [u128::MAX >> (128 - 116), 0, 1 << 110] {
        assert_eq!(Packed { bits, chars: 36 }.issuance(), None, "{bits:x}");
    }
}

#[test]
fn codes_that_were_signed_under_any_secret_are_valid() {
    let former = secrets(1..=1).code(id(42, 17));
    let (both, other) = (secrets(1..=2), secrets(2..=2));
    let new = both.code(id(42, 17));
    assert_ne!(former, new);
    assert_eq!((both.current(), both.newest()), (2, 2));
    for code in [&former, &new] {
        assert_eq!(find(&both, code.as_str()), Some(id(42, 17)));
    }
    assert_eq!(find(&other, former.as_str()), None);
    assert_eq!(find(&other, new.as_str()), Some(id(42, 17)));
}

#[test]
fn a_secret_is_used_once_all_nodes_know_it() {
    let current = |ages: &[u64]| {
        let secrets: Vec<CodeSecret> = (1..)
            .zip(ages)
            .map(|(number, age)| secret(number, *age))
            .collect();
        CodeSecrets::new(&secrets).map(|secrets| (secrets.current(), secrets.newest()))
    };
    assert_eq!(current(&[]), None);
    assert_eq!(current(&[0]), Some((1, 1)), "there is no other");
    assert_eq!(current(&[600, 59]), Some((1, 2)));
    assert_eq!(current(&[600, 60]), Some((2, 2)));
    assert_eq!(current(&[600, 61, 0]), Some((2, 3)));
}

#[test]
fn a_secret_is_read_from_its_text_and_never_shown() {
    let text = CodeSecret::random_text();
    let read = CodeSecret::new(3, Duration::ZERO, &text).unwrap();
    assert_ne!(text, CodeSecret::random_text());
    let shown = format!(
        "{read:?} {:?}",
        CodeSecrets::new(std::slice::from_ref(&read)).unwrap()
    );
    assert!(shown.contains('3') && !shown.contains(&text) && !shown.contains(&format!("{:?}", read.key)));
    for text in ["", &text[1..], &text.replace(&text[..1], "x"), &"é".repeat(32)] {
        assert!(CodeSecret::new(1, Duration::ZERO, text).is_none(), "{text:?}");
    }
}
