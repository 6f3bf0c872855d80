//! Ids of orders as they are kept in memory. Many shops name orders by UUIDs, whose text takes 36 bytes and
//! whose value takes 16.

use uuid::Uuid;

use crate::ids::{ORDER_ID_BYTES_MAX, OrderId};

/// Stands in place of a length if the bytes are those of a UUID.
const UUID: u8 = u8::MAX;
const _: () = assert!(ORDER_ID_BYTES_MAX < UUID as usize);

/// The id of an order. Two are equal exactly if their texts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackedOrder<'a> {
    /// Any other text.
    Text(&'a str),
    /// A UUID in lower case with hyphens.
    Uuid(Uuid),
}

impl<'a> PackedOrder<'a> {
    /// Packs the text of an order id.
    pub(super) fn new(text: &'a str) -> Self {
        let mut buffer = Uuid::encode_buffer();
        match Uuid::try_parse(text) {
            // The other forms of a UUID are other order ids.
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut buffer) == text => Self::Uuid(uuid),
            _ => Self::Text(text),
        }
    }

    /// Reads what [`Self::bytes`] and [`Self::length`] returned. Returns `None` for the length 0.
    ///
    /// # Panics
    ///
    /// If the bytes are others.
    pub(super) fn read(bytes: &'a [u8], length: u8) -> Option<Self> {
        if length == UUID {
            let uuid = Uuid::from_slice(&bytes[..size_of::<Uuid>()]);
            return Some(Self::Uuid(uuid.expect("it has as many bytes as a UUID")));
        }
        let text = std::str::from_utf8(&bytes[..usize::from(length)]).expect("taken from a str");
        (!text.is_empty()).then_some(Self::Text(text))
    }

    /// Returns the bytes to be kept.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Uuid(uuid) => uuid.as_bytes(),
        }
    }

    /// Returns the length to be kept beside the bytes. It also says whether they are those of a UUID.
    pub(super) fn length(&self) -> u8 {
        match self {
            // An order id has at most 64 bytes.
            Self::Text(text) => text.len() as u8,
            Self::Uuid(_) => UUID,
        }
    }

    /// Returns the order id.
    pub(super) fn unpacked(&self) -> OrderId {
        let mut buffer = Uuid::encode_buffer();
        let text = match self {
            Self::Text(text) => text,
            Self::Uuid(uuid) => &*uuid.hyphenated().encode_lower(&mut buffer),
        };
        OrderId::parse(text).expect("checked when it was taken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> (Vec<u8>, u8) {
        let packed = PackedOrder::new(text);
        (packed.bytes().to_vec(), packed.length())
    }

    #[test]
    fn each_order_id_is_read_as_it_was() {
        let lower = "0c8fb9d4-6a1e-4f0e-9c3b-00000000a001";
        let others = [
            "A-1".to_owned(),
            lower.to_uppercase(),
            lower.replace('-', ""),
            format!("{{{lower}}}"),
            format!("urn:uuid:{lower}"),
            lower.replace('f', "g"),
            "x".repeat(16),
            "x".repeat(ORDER_ID_BYTES_MAX),
        ];
        for text in others.iter().map(String::as_str).chain([lower]) {
            let (bytes, length) = kept(text);
            assert_eq!(bytes.len() == 16 && length == UUID, text == lower, "{text}");
            let read = PackedOrder::read(&bytes, length);
            assert_eq!(read, Some(PackedOrder::new(text)));
            assert_eq!(
                read.map(|order| order.unpacked().as_str().to_owned()).as_deref(),
                Some(text)
            );
        }
        assert_eq!(PackedOrder::read(&[], 0), None);
    }

    #[test]
    fn order_ids_are_equal_exactly_if_their_texts_are() {
        let lower = "0c8fb9d4-6a1e-4f0e-9c3b-00000000a001";
        assert_eq!(PackedOrder::new(lower), PackedOrder::new(lower));
        assert_ne!(PackedOrder::new(lower), PackedOrder::new(&lower.to_uppercase()));
        assert_ne!(
            PackedOrder::new(lower),
            PackedOrder::new(&lower.replace("a001", "a002"))
        );
    }
}
