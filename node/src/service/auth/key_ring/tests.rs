use super::file::parse;
use super::*;

fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn entry(name: &str, secret: &str, more: &str) -> String {
    let sha256 = hex::encode(digest(secret));
    format!("[[keys]]\nname = \"{name}\"\nrole = \"service\"\nsha256 = \"{sha256}\"\n{more}\n")
}

#[test]
fn a_key_is_found_by_its_secret_until_its_time_is_over() {
    let text = entry("shop", "one", "") + &entry("audit", "two", "until = 2027-01-31T00:00:00+09:00");
    let keys = NamedKeys::new(parse(text.as_bytes(), None).unwrap());
    let found = |secret: &str, now: &str| {
        let found = keys.find(&digest(secret), time(now))?;
        Ok::<_, TokenRefusal>(found.map(|(name, role)| (name.as_str().to_owned(), role)))
    };
    let (before, at) = ("2027-01-30T14:59:59Z", "2027-01-30T15:00:00Z");
    assert_eq!(found("one", at), Ok(Some(("shop".to_owned(), Role::Service))));
    assert_eq!(
        found("two", before),
        Ok(Some(("audit".to_owned(), Role::Service)))
    );
    assert_eq!(found("two", at), Err(TokenRefusal::KeyOver));
    assert_eq!(found("three", at), Ok(None));
    // The digest in the file is no secret.
    assert_eq!(found(&hex::encode(digest("one")), at), Ok(None));
}

#[test]
fn a_wrong_file_is_refused_with_the_reason() {
    let good = entry("shop", "one", "");
    let admin = digest("token");
    for (text, reason) in [
        (String::new(), "is empty"),
        ("\n \n".to_owned(), "is empty"),
        ("[[keys]".to_owned(), "line 1"),
        (format!("{good}[[keys]]\n"), "missing field `name`"),
        (format!("{good}key = 1\n"), "unknown field `key`"),
        (format!("{good}[other]\n"), "unknown field `other`"),
        (good.replace("service", "root"), "unknown variant `root`"),
        (good.replace("shop", "admin"), "that of the admin token"),
        (good.replace("shop", ""), "a name has 1 to 64"),
        (good.replace("shop", "a b"), "a name has 1 to 64"),
        (good.replace("shop", &"x".repeat(65)), "a name has 1 to 64"),
        (
            entry("shop", "one", "until = \"tomorrow\""),
            "until must be a time",
        ),
        (entry("shop", "one", "until = 2027-01-31"), "until must be a time"),
        (
            entry("shop", "one", "until = 2027-01-31T00:00:00"),
            "until must be a time",
        ),
        (
            format!("{good}{}", entry("shop", "two", "")),
            "two keys have the name \"shop\"",
        ),
        (
            format!("{good}{}", entry("other", "one", "")),
            "is that of another key",
        ),
        (entry("shop", "token", ""), "is that of another key"),
    ] {
        let error = parse(text.as_bytes(), Some(&admin)).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let plain = good.replace(&hex::encode(digest("one")), "a-secret-by-mistake");
    let error = parse(plain.as_bytes(), None).unwrap_err();
    assert!(
        error.contains("key 1: sha256 must be") && !error.contains("mistake"),
        "{error}"
    );
    let many: String = (0..1_001)
        .map(|number| entry(&format!("k{number}"), &number.to_string(), ""))
        .collect();
    assert!(
        parse(many.as_bytes(), None)
            .unwrap_err()
            .contains("more than 1000")
    );
}

#[test]
fn a_file_may_say_that_there_are_no_keys() {
    assert_eq!(parse(b"keys = []\n", None).unwrap(), []);
}

#[test]
fn the_entry_of_a_new_key_is_read_as_it_was_made() {
    let until = time("2027-01-31T00:00:00Z");
    for until in [None, Some(until)] {
        let made = new_key("shop-1", RoleName::Operator, until).unwrap();
        let keys = parse(made.entry.as_bytes(), None).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(
            (keys[0].name.as_str(), keys[0].role, keys[0].until, keys[0].digest),
            ("shop-1", RoleName::Operator, until, digest(&made.secret))
        );
    }
    assert!(new_key("admin", RoleName::Admin, None).is_err());
}
