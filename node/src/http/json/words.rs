//! Says the errors of a deserializer in the words of the API.

/// The message about a field or a parameter that must be there.
pub(crate) const REQUIRED: &str = "is required";

/// Returns what is wrong with a field, by the message of a deserializer. The message is without the client's
/// text, which can be as long as the body.
pub(super) fn in_words_of_the_api(message: &str) -> String {
    if message.starts_with("missing field `") {
        return REQUIRED.to_owned();
    }
    if message.starts_with("duplicate field `") {
        return "must occur only once".to_owned();
    }
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    if what.starts_with("unknown field `") {
        return match expected {
            "" => "unknown field, expected none".to_owned(),
            known => format!("unknown field, expected {known}"),
        };
    }
    match expected {
        // The message of a check of our own.
        "" => message.to_owned(),
        "a sequence" => "must be a list".to_owned(),
        "a boolean" => "must be true or false".to_owned(),
        "a map" => "must be an object".to_owned(),
        // What types expect says what a value is: `a string`, `a whole number`.
        expected => format!("must be {expected}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_deserializer_are_said_in_words_of_the_api() {
        for (message, words) in [
            ("missing field `title`", "is required"),
            ("duplicate field `title`", "must occur only once"),
            (
                "unknown field `colour`, expected `a` or `b`",
                "unknown field, expected `a` or `b`",
            ),
            (
                "unknown field `a, expected b`, expected one of `c`, `d`, `e`",
                "unknown field, expected one of `c`, `d`, `e`",
            ),
            (
                "unknown field `colour`, there are no fields",
                "unknown field, expected none",
            ),
            (
                "invalid type: string \"1, expected 2\", expected a whole number",
                "must be a whole number",
            ),
            ("invalid type: map, expected a sequence", "must be a list"),
            ("invalid type: null, expected a string", "must be a string"),
            (
                "invalid type: integer `1`, expected a boolean",
                "must be true or false",
            ),
            ("invalid type: sequence, expected a map", "must be an object"),
            ("must be amount or rate", "must be amount or rate"),
        ] {
            assert_eq!(in_words_of_the_api(message), words, "{message}");
        }
    }
}
