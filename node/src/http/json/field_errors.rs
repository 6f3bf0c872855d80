//! Finds all fields of a body that do not fit. A deserializer stops at the first one. Here that field is
//! taken out of the body, and the rest is read again.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::field_error;
use crate::http::problem::FieldError;

/// Maximum number of fields that are reported: more than a coupon has. The body is read again for each of
/// them.
const ERRORS_MAX: usize = 16;

/// A body that does not fit: the errors of its fields, and the value without these fields if there is one.
#[derive(Debug)]
pub(super) struct InvalidFields<T> {
    /// At least one.
    pub(super) errors: Vec<FieldError>,
    pub(super) rest: Option<T>,
}

/// Returns the errors of a body. `first` is the first error. Only this error can be about a field that occurs
/// twice, because a [`Value`] keeps only one of the two.
pub(super) fn find<T: DeserializeOwned>(body: &[u8], first: FieldError) -> InvalidFields<T> {
    let mut errors = vec![first];
    let mut rest = None;
    if let Ok(mut value) = serde_json::from_slice::<Value>(body) {
        // There may be two attempts for each error, because an object that lost a field may have to be taken
        // out as well.
        for _ in 0..2 * ERRORS_MAX {
            match serde_path_to_error::deserialize::<_, T>(&value) {
                Ok(read) => {
                    rest = Some(read);
                    break;
                }
                Err(error) if errors.len() < ERRORS_MAX => {
                    add(&mut errors, field_error(&error));
                    if !take_out(&mut value, error.path()) {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    }
    InvalidFields { errors, rest }
}

/// Adds an error, unless the field or a part of it has one already. After a wrong field was taken out of an
/// object, the deserializer reports that the field is missing.
fn add(errors: &mut Vec<FieldError>, error: FieldError) {
    let is_known = errors.iter().any(|known| {
        let part = known.field.strip_prefix(&error.field);
        part.is_some_and(|part| part.is_empty() || part.starts_with(['.', '[']))
    });
    if !is_known {
        errors.push(error);
    }
}

/// Takes the field at this path out of the value, or the object in which it is missing. Returns false if that
/// is the whole value.
fn take_out(value: &mut Value, path: &Path) -> bool {
    let keys: Vec<&str> = path
        .iter()
        .map_while(|segment| match segment {
            Segment::Map { key } => Some(key.as_str()),
            // If an element of a list does not fit, the whole list is taken out.
            Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect();
    let Some((last, parents)) = keys.split_last() else {
        return false;
    };
    let parent = parents.iter().try_fold(value, |value, key| value.get_mut(key));
    parent
        .and_then(Value::as_object_mut)
        .is_some_and(|fields| fields.remove(*last).is_some())
}
