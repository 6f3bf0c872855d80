//! A payload for the tests of links: a request is a number and a text, and its answer is a number.

use tokio::sync::oneshot;

use crate::link::frame::FrameError;
use crate::link::hello::VERSIONS;
use crate::link::payload::{Payload, Undelivered};

/// A payload whose requests and answers have no meaning.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample;

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SampleAsk {
    /// Distinguishes requests.
    pub(crate) number: u64,
    /// Makes a request as long as a test needs.
    pub(crate) text: String,
}

/// The number of a request that only this release knows.
pub(crate) const NEWEST_NUMBER: u64 = 1_234_567;

impl SampleAsk {
    /// Makes a request with this number and no text.
    pub(crate) fn numbered(number: u64) -> Self {
        Self {
            number,
            text: String::new(),
        }
    }
}

/// What the caller of a request receives.
pub(crate) type SampleAnswer = Result<u64, Undelivered>;

impl Payload for Sample {
    type Ask = SampleAsk;
    type Answer = u64;
    type Reply = oneshot::Sender<SampleAnswer>;

    fn version_of(ask: &SampleAsk) -> u32 {
        if ask.number == NEWEST_NUMBER {
            VERSIONS[0]
        } else {
            0
        }
    }

    fn encode_ask(ask: SampleAsk) -> Vec<u8> {
        let mut bytes = ask.number.to_le_bytes().to_vec();
        bytes.extend_from_slice(ask.text.as_bytes());
        bytes
    }

    fn decode_ask(bytes: &[u8]) -> Result<SampleAsk, FrameError> {
        let (number, text) = bytes.split_first_chunk().ok_or(FrameError::Wrong("number"))?;
        let text = std::str::from_utf8(text).map_err(|_| FrameError::Wrong("text"))?;
        Ok(SampleAsk {
            number: u64::from_le_bytes(*number),
            text: text.to_owned(),
        })
    }

    fn encode_answer(answer: u64) -> Vec<u8> {
        answer.to_le_bytes().to_vec()
    }

    fn decode_answer(bytes: &[u8]) -> Result<u64, FrameError> {
        let bytes = bytes.try_into().map_err(|_| FrameError::Wrong("answer"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn is_waited_for(reply: &Self::Reply) -> bool {
        !reply.is_closed()
    }

    fn reply(reply: Self::Reply, answer: SampleAnswer) {
        // A caller that has gone needs no answer.
        let _ = reply.send(answer);
    }
}
