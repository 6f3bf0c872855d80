//! Parses an HTTP/1.1 answer from the bytes received so far. It reads nothing itself, and allocates only for
//! a body in chunks.
//!
//! The end of a body is determined as RFC 9112 says. Answers with 1xx, 204 and 304 have no body. The end of
//! other bodies is given by chunks, else by `Content-Length`, else by the end of the connection.
//! Contradictions are errors, never guesses: a generator that misreads the end of an answer would measure
//! nonsense from then on.

use std::ops::Range;

use httparse::{EMPTY_HEADER, Header, Status};

/// Maximum number of header fields of an answer. The service has fewer than ten; proxies add some.
const HEADERS_MAX: usize = 64;
/// Maximum length of a head, and of a trailer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Maximum length of a body. The longest page of the service has a tenth of this.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Maximum length of an answer, in bytes: a chunk of one byte has five more bytes around it.
pub const ANSWER_BYTES_MAX: usize = HEAD_BYTES_MAX + 6 * BODY_BYTES_MAX;

/// The reason why bytes are not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The head is not HTTP/1.
    #[error("the head is not HTTP/1")]
    Head,
    /// A `Content-Length` is not a number, or two of them differ.
    #[error("a Content-Length is not a number, or two of them differ")]
    Length,
    /// The body has a transfer coding that was not requested.
    #[error("the body is in a coding that was not requested")]
    Coding,
    /// A chunk does not end after the length that it gives.
    #[error("a chunk does not end where it says")]
    Chunk,
    /// The answer is longer than any answer may be.
    #[error("the answer is too long")]
    TooLong,
    /// The connection ended within the answer.
    #[error("the connection ended within the answer")]
    Cut,
}

/// The place of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    /// In the received bytes.
    Plain(Range<usize>),
    /// In the scratch buffer, joined from chunks.
    Joined,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// True if the answer carries `Idempotent-Replayed: true`.
    pub replayed: bool,
    /// True if the connection may be used for another request.
    pub keep_alive: bool,
    /// The length of the answer in bytes.
    pub length: usize,
    body: Body,
}

impl Response {
    /// Returns the body, from the bytes that the answer was parsed from.
    pub fn body<'b>(&self, bytes: &'b [u8], scratch: &'b [u8]) -> &'b [u8] {
        match &self.body {
            Body::Plain(place) => &bytes[place.clone()],
            Body::Joined => scratch,
        }
    }
}

/// Parses the first answer in these bytes; `None` if it is not complete. `ended` is true if no more bytes
/// will come.
pub fn parse(bytes: &[u8], ended: bool, scratch: &mut Vec<u8>) -> Result<Option<Response>, Malformed> {
    let mut begin = 0;
    loop {
        let Some(head) = Head::parse(&bytes[begin..])? else {
            let too_long = bytes.len() - begin > HEAD_BYTES_MAX || begin > HEAD_BYTES_MAX;
            return if too_long {
                Err(Malformed::TooLong)
            } else {
                partial(ended)
            };
        };
        begin += head.length;
        // An interim answer; the final answer follows. 101 would end HTTP on the connection, and was not
        // requested.
        if (100..200).contains(&head.status) {
            if head.status == 101 {
                return Err(Malformed::Head);
            }
            continue;
        }
        let Some((body, end)) = head.body(bytes, begin, ended, scratch)? else {
            return partial(ended);
        };
        let keep_alive = head.keep_alive && !(head.framing == Framing::UntilEnd);
        return Ok(Some(Response {
            status: head.status,
            replayed: head.replayed,
            keep_alive,
            length: end,
            body,
        }));
    }
}

fn partial<T>(ended: bool) -> Result<Option<T>, Malformed> {
    if ended { Err(Malformed::Cut) } else { Ok(None) }
}

/// How the end of a body is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

struct Head {
    status: u16,
    replayed: bool,
    keep_alive: bool,
    framing: Framing,
    length: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let Status::Complete(length) = response.parse(bytes).map_err(|_| Malformed::Head)? else {
            return Ok(None);
        };
        let (Some(status), Some(version)) = (response.code, response.version) else {
            return Err(Malformed::Head);
        };
        let fields = Fields::of(response.headers)?;
        let framing = match (status, fields.coded, fields.content_length) {
            (100..=199 | 204 | 304, ..) => Framing::Length(0),
            (_, true, _) => Framing::Chunked,
            (_, false, Some(length)) => Framing::Length(length),
            (_, false, None) => Framing::UntilEnd,
        };
        // An answer with both framings may be an attack on a proxy. Chunks take precedence, and the
        // connection is not used again.
        let ambiguous = fields.coded && fields.content_length.is_some();
        let keep_alive = !fields.close && !ambiguous && (version == 1 || fields.keep);
        Ok(Some(Self {
            status,
            replayed: fields.replayed,
            keep_alive,
            framing,
            length,
        }))
    }

    /// Returns the body and the place after it.
    fn body(
        &self,
        bytes: &[u8],
        begin: usize,
        ended: bool,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<(Body, usize)>, Malformed> {
        match self.framing {
            Framing::Length(length) if bytes.len() - begin >= length => {
                Ok(Some((Body::Plain(begin..begin + length), begin + length)))
            }
            Framing::Length(_) => Ok(None),
            Framing::Chunked => Ok(join(bytes, begin, scratch)?.map(|end| (Body::Joined, end))),
            Framing::UntilEnd if bytes.len() - begin > BODY_BYTES_MAX => Err(Malformed::TooLong),
            Framing::UntilEnd => Ok(ended.then_some((Body::Plain(begin..bytes.len()), bytes.len()))),
        }
    }
}

/// The header fields that matter here.
#[derive(Default)]
struct Fields {
    content_length: Option<usize>,
    coded: bool,
    close: bool,
    keep: bool,
    replayed: bool,
}

impl Fields {
    fn of(headers: &[Header<'_>]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // The length is compared first, because this runs for every field of every answer.
            match header.name.len() {
                14 if is("content-length") => fields.length(header.value)?,
                17 if is("transfer-encoding") => {
                    if fields.coded || !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed::Coding);
                    }
                    fields.coded = true;
                }
                10 if is("connection") => {
                    for option in header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        fields.close |= option.eq_ignore_ascii_case(b"close");
                        fields.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                19 if is("idempotent-replayed") => fields.replayed = header.value == b"true",
                _ => {}
            }
        }
        Ok(fields)
    }

    /// Adds a `Content-Length`. The field may be repeated or hold a list, if all values are equal.
    fn length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        for text in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
            let length = str::from_utf8(text)
                .ok()
                .filter(|_| digits)
                .ok_or(Malformed::Length)?;
            let length: usize = length.parse().map_err(|_| Malformed::TooLong)?;
            if length > BODY_BYTES_MAX {
                return Err(Malformed::TooLong);
            }
            if self
                .content_length
                .replace(length)
                .is_some_and(|before| before != length)
            {
                return Err(Malformed::Length);
            }
        }
        Ok(())
    }
}

/// Joins the chunks that begin here in the scratch buffer. Returns the place after the last chunk and its
/// trailer.
fn join(bytes: &[u8], begin: usize, scratch: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
    scratch.clear();
    let mut at = begin;
    loop {
        let size = httparse::parse_chunk_size(&bytes[at..]).map_err(|_| Malformed::Chunk)?;
        let Status::Complete((line, size)) = size else {
            return unfinished(&bytes[at..]);
        };
        at += line;
        let size = usize::try_from(size)
            .ok()
            .filter(|size| scratch.len() + size <= BODY_BYTES_MAX)
            .ok_or(Malformed::TooLong)?;
        if size == 0 {
            let mut headers = [EMPTY_HEADER; HEADERS_MAX];
            return match httparse::parse_headers(&bytes[at..], &mut headers).map_err(|_| Malformed::Chunk)? {
                Status::Complete((trailer, _)) => Ok(Some(at + trailer)),
                Status::Partial => unfinished(&bytes[at..]),
            };
        }
        let Some(chunk) = bytes.get(at..at + size) else {
            return Ok(None);
        };
        match &bytes[at + size..] {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Ok(None),
            _ => return Err(Malformed::Chunk),
        }
        scratch.extend_from_slice(chunk);
        at += size + 2;
    }
}

/// Returns `None` for an incomplete line or trailer, or an error if it is too long already.
fn unfinished<T>(bytes: &[u8]) -> Result<Option<T>, Malformed> {
    if bytes.len() > HEAD_BYTES_MAX {
        Err(Malformed::TooLong)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
