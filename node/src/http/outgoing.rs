//! Tells hyper's own responses from those of the service, in the bytes that hyper writes.
//!
//! hyper answers a head that it cannot parse by itself, and has no hook for that. Bytes are not searched to
//! find such a response: clients choose some bytes of other responses, like the request id. Instead, the time
//! at which bytes are added to hyper's buffer shows what they are. hyper offers its whole buffer whenever it
//! writes, and it writes after each part that it gets from the service, before it reads another head. So if
//! bytes are added although the service gave nothing, they are a response of hyper.

/// The interim response that hyper adds when the service reads a body that the client sends only after this
/// response.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What to do with the bytes that hyper offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// This many bytes from the front are sent as they are.
    Send(usize),
    /// The bytes are a response that hyper made itself.
    Own,
}

/// What is known of hyper's buffer.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Number of bytes at the front that are sent as they are.
    known: usize,
    /// True if the service gave something since hyper wrote last.
    service_gave: bool,
}

impl Outgoing {
    /// Records that the service gave hyper a response or a part of one.
    pub(super) fn service_gave(&mut self) {
        self.service_gave = true;
    }

    /// Examines the bytes that hyper offers, which are its whole buffer.
    pub(super) fn offered(&mut self, bytes: &[u8]) -> Offer {
        let added = bytes.get(self.known..).unwrap_or_default();
        if std::mem::take(&mut self.service_gave) || added == CONTINUE {
            self.known = bytes.len();
        }
        match self.known {
            0 if !bytes.is_empty() => Offer::Own,
            known => Offer::Send(known.min(bytes.len())),
        }
    }

    /// Records that this many bytes from the front were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.known = self.known.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    const OURS: &[u8] = b"HTTP/1.1 200 OK\r\nx-request-id: HTTP/1.1_400_x\r\ncontent-length: 2\r\n\r\n{}";

    #[test]
    fn a_response_of_the_service_is_sent_whatever_its_bytes_are() {
        for bytes in [OURS, OWN, CONTINUE] {
            let mut outgoing = Outgoing::default();
            outgoing.service_gave();
            // The system accepts a byte at a time.
            for from in 0..bytes.len() {
                assert_eq!(outgoing.offered(&bytes[from..]), Offer::Send(bytes.len() - from));
                outgoing.wrote(1);
            }
            assert_eq!(outgoing.offered(&[]), Offer::Send(0));
            assert_eq!(outgoing.offered(OWN), Offer::Own);
        }
    }

    #[test]
    fn a_response_that_the_service_did_not_give_is_hypers() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.offered(OWN), Offer::Own);
        // The bytes do not matter.
        assert_eq!(Outgoing::default().offered(OURS), Offer::Own);
    }

    #[test]
    fn the_unsent_rest_of_a_response_is_sent_before_hypers() {
        let mut outgoing = Outgoing::default();
        outgoing.service_gave();
        assert_eq!(outgoing.offered(OURS), Offer::Send(OURS.len()));
        outgoing.wrote(10);
        let buffer = [&OURS[10..], OWN].concat();
        assert_eq!(outgoing.offered(&buffer), Offer::Send(OURS.len() - 10));
        outgoing.wrote(OURS.len() - 10);
        assert_eq!(outgoing.offered(OWN), Offer::Own);
    }

    #[test]
    fn an_interim_response_is_sent_alone_or_with_the_final_one() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.offered(CONTINUE), Offer::Send(CONTINUE.len()));
        outgoing.wrote(5);
        assert_eq!(outgoing.offered(&CONTINUE[5..]), Offer::Send(CONTINUE.len() - 5));
        outgoing.service_gave();
        let buffer = [&CONTINUE[5..], OURS].concat();
        assert_eq!(outgoing.offered(&buffer), Offer::Send(buffer.len()));
        outgoing.wrote(buffer.len());
        assert_eq!(outgoing.offered(OWN), Offer::Own);
    }

    #[test]
    fn a_body_in_parts_is_sent() {
        let mut outgoing = Outgoing::default();
        for part in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"one", b"two"] {
            outgoing.service_gave();
            assert_eq!(outgoing.offered(part), Offer::Send(part.len()));
            outgoing.wrote(part.len());
        }
    }
}
