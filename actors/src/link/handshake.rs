//! The handshake with which a session of the library begins, checked before the library reads it.
//!
//! Until both ends have shown that they know the cookie, anything may be at the other end. The library logs
//! each frame that it does not expect, so a frame that is not the next one of the handshake is not passed to
//! it: the connection ends there.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use prost::Message;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::link::socket::refused;

/// Maximum length of a frame of the handshake: the longest has a name, an address and some numbers.
const FRAME_BYTES_MAX: usize = 1024;
/// Bytes of a frame's length, which precedes the frame.
const LENGTH_BYTES: usize = 8;

/// The frame that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// On an accepted connection: the name of the peer.
    Name,
    /// On an accepted connection: the peer's message that it goes on, or its answer to the challenge.
    StatusOrAnswer,
    /// On an accepted connection: the peer's answer to the challenge.
    Answer,
    /// On a dialled connection: whether the peer goes on.
    Status,
    /// On a dialled connection: the peer's challenge.
    Challenge,
    /// On a dialled connection: the peer's answer to this node's challenge.
    Acknowledgement,
    /// Any frame: the library checks the last frame of the handshake before it handles another one.
    Any,
}

/// A frame of the library, as far as the handshake needs it.
#[derive(Clone, PartialEq, prost::Message)]
struct WireFrame {
    #[prost(oneof = "WireMessage", tags = "1, 2, 3")]
    message: Option<WireMessage>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireMessage {
    #[prost(message, tag = "1")]
    Authentication(WireAuthentication),
    #[prost(bytes, tag = "2")]
    Node(Vec<u8>),
    #[prost(bytes, tag = "3")]
    Control(Vec<u8>),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireAuthentication {
    #[prost(oneof = "WireStep", tags = "1, 2, 3, 4, 5, 6")]
    step: Option<WireStep>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireStep {
    #[prost(bytes, tag = "1")]
    Name(Vec<u8>),
    #[prost(bytes, tag = "2")]
    ServerStatus(Vec<u8>),
    #[prost(bytes, tag = "3")]
    ClientStatus(Vec<u8>),
    #[prost(bytes, tag = "4")]
    ServerChallenge(Vec<u8>),
    #[prost(bytes, tag = "5")]
    ClientChallenge(Vec<u8>),
    #[prost(bytes, tag = "6")]
    ServerAcknowledgement(Vec<u8>),
}

impl Step {
    /// Returns the step after this frame; `None` if the frame does not belong here.
    fn after(self, frame: &[u8]) -> Option<Self> {
        let message = WireFrame::decode(frame).ok()?.message?;
        let WireMessage::Authentication(WireAuthentication { step: Some(sent) }) = message else {
            return None;
        };
        Some(match (self, sent) {
            (Self::Name, WireStep::Name(_)) => Self::StatusOrAnswer,
            (Self::StatusOrAnswer, WireStep::ClientStatus(_)) => Self::Answer,
            (Self::StatusOrAnswer | Self::Answer, WireStep::ClientChallenge(_)) => Self::Any,
            (Self::Status, WireStep::ServerStatus(_)) => Self::Challenge,
            (Self::Challenge, WireStep::ServerChallenge(_)) => Self::Acknowledgement,
            (Self::Acknowledgement, WireStep::ServerAcknowledgement(_)) => Self::Any,
            _ => return None,
        })
    }
}

/// The reading half of a connection, which passes the frames of a handshake and everything after it.
pub(super) struct Handshake<R> {
    inner: R,
    step: Step,
    /// The frame that is being read or handed out, preceded by its length.
    frame: Vec<u8>,
    /// How many bytes of the frame were handed out; `None` while it is not complete.
    handed_out: Option<usize>,
    peer: SocketAddr,
    /// Cuts the connection.
    cut: CancellationToken,
}

impl<R: AsyncRead + Unpin> Handshake<R> {
    /// Begins with the frame `step` of a connection with this peer.
    pub(super) fn new(inner: R, step: Step, peer: SocketAddr, cut: CancellationToken) -> Self {
        Self {
            inner,
            step,
            frame: Vec::new(),
            handed_out: None,
            peer,
            cut,
        }
    }

    /// Waits until the first frame has arrived. Returns false if the connection ends before.
    ///
    /// # Errors
    ///
    /// If the connection fails, or the frame does not belong there.
    pub(super) async fn begin(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|context| self.poll_frame(context)).await
    }

    /// Returns true once there are bytes to pass, and false at the end of the connection.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.handed_out.is_none() && self.step != Step::Any {
            let missing = self.missing()?;
            if missing == 0 {
                let next = self.step.after(&self.frame[LENGTH_BYTES..]);
                self.step = next.ok_or_else(|| unexpected("a frame that is not of its handshake"))?;
                self.handed_out = Some(0);
                break;
            }
            let mut chunk = [0; LENGTH_BYTES + FRAME_BYTES_MAX];
            let mut chunk = ReadBuf::new(&mut chunk[..missing]);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.frame.extend_from_slice(chunk.filled());
        }
        Poll::Ready(Ok(true))
    }

    /// Returns how many bytes of the frame, or of its length, are missing.
    fn missing(&self) -> io::Result<usize> {
        let Some((length, read)) = self.frame.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(LENGTH_BYTES - self.frame.len());
        };
        let length = usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(unexpected("a frame that is too long for its handshake"));
        }
        Ok(length - read.len())
    }
}

fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: AsyncRead + Unpin> AsyncRead for Handshake<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(self.poll_frame(context)) {
            Ok(true) => {}
            Ok(false) => return Poll::Ready(Ok(())),
            Err(error) => {
                // To the library this is the end of the connection, so it has nothing to log.
                refused(self.peer, &error);
                self.cut.cancel();
                return Poll::Ready(Ok(()));
            }
        }
        let Some(from) = self.handed_out else {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        };
        let rest = &self.frame[from..];
        let passed = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..passed]);
        if passed == rest.len() {
            self.frame.clear();
            self.handed_out = None;
        } else {
            self.handed_out = Some(from + passed);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn frame(message: WireMessage) -> Vec<u8> {
        let bytes = WireFrame {
            message: Some(message),
        }
        .encode_to_vec();
        [&(bytes.len() as u64).to_be_bytes()[..], &bytes].concat()
    }

    fn of(step: WireStep) -> Vec<u8> {
        frame(WireMessage::Authentication(WireAuthentication {
            step: Some(step),
        }))
    }

    fn node() -> Vec<u8> {
        frame(WireMessage::Node(vec![1, 2, 3]))
    }

    /// Returns which of these bytes pass, and whether the connection was cut.
    async fn passes(step: Step, sent: &[u8]) -> (Vec<u8>, bool) {
        let cut = CancellationToken::new();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut passed = Vec::new();
        let mut handshake = Handshake::new(sent, step, peer, cut.clone());
        handshake.read_to_end(&mut passed).await.unwrap();
        (passed, cut.is_cancelled())
    }

    #[tokio::test]
    async fn a_handshake_and_everything_after_it_passes() {
        let (name, answer) = (
            of(WireStep::Name(vec![7; 300])),
            of(WireStep::ClientChallenge(vec![1])),
        );
        let status = of(WireStep::ClientStatus(vec![]));
        let garbage = vec![0xff; 5_000];
        let accepted = [name.clone(), answer.clone(), node(), garbage.clone()].concat();
        assert_eq!(passes(Step::Name, &accepted).await, (accepted, false));
        let again = [name, status, answer, garbage.clone()].concat();
        assert_eq!(passes(Step::Name, &again).await, (again, false));
        let dialled = [
            of(WireStep::ServerStatus(vec![])),
            of(WireStep::ServerChallenge(vec![2])),
            of(WireStep::ServerAcknowledgement(vec![3])),
            garbage,
        ]
        .concat();
        assert_eq!(passes(Step::Status, &dialled).await, (dialled, false));
    }

    #[tokio::test]
    async fn the_first_frame_that_is_not_of_the_handshake_and_everything_after_it_do_not_pass() {
        let name = of(WireStep::Name(vec![]));
        let wrong = [
            node(),
            frame(WireMessage::Control(vec![])),
            vec![0; 8],
            [&5_u64.to_be_bytes()[..], &[0xff; 5]].concat(),
            u64::MAX.to_be_bytes().to_vec(),
            (FRAME_BYTES_MAX as u64 + 1).to_be_bytes().to_vec(),
            of(WireStep::Name(vec![])),
            of(WireStep::ServerAcknowledgement(vec![])),
            frame(WireMessage::Authentication(WireAuthentication { step: None })),
        ];
        for wrong in wrong {
            let sent = [name.clone(), wrong, node()].concat();
            assert_eq!(passes(Step::Name, &sent).await, (name.clone(), true), "{sent:?}");
        }
        assert_eq!(passes(Step::Name, &node()).await, (Vec::new(), true));
        // A connection that ends in the middle of a frame was not refused.
        assert_eq!(passes(Step::Name, &name[..9]).await, (Vec::new(), false));
    }
}
