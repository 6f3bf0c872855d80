//! One keep-alive connection, and the loop that sends requests over it, one at a time.
//!
//! Nothing here allocates for a request once the buffers are large enough, and every wait has the run's
//! limit.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::arrivals::Arrival;
use super::checkout;
use super::drive::Worker;
use super::response::{self, ANSWER_BYTES_MAX, Response};
use super::tally::{Failure, ISSUE};
use testkit::history::file::{Answer, Request};
use testkit::ids::IssuanceId;

/// Size of one read. Several answers of the service fit.
const READ_BYTES: usize = 8 << 10;
/// Idle time after which a server may have closed the connection. This is checked before the next request is
/// sent, because afterwards the outcome of the request would be unknown.
const STALE: Duration = Duration::from_secs(1);
/// First and longest wait before the next attempt to connect. The waits prevent a flood of attempts while the
/// server is gone.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The target of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The socket.
    pub address: SocketAddr,
    /// The value of `Host`.
    pub host: String,
}

/// One connection, which may be down.
#[derive(Debug)]
pub struct Connection {
    target: Target,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    filled: usize,
    scratch: Vec<u8>,
    limit: Duration,
    deadline: tokio::time::Instant,
    /// A timer for the deadline or for an earlier time. If it fires early, it is set again. Setting it for
    /// each request would cost more than waking early now and then.
    alarm: Pin<Box<Sleep>>,
    used: Instant,
}

impl Connection {
    /// Makes a connection that is down. Must be called within the runtime that will use the connection.
    pub fn new(target: Target, limit: Duration) -> Self {
        Self {
            target,
            stream: None,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            scratch: Vec::new(),
            limit,
            deadline: tokio::time::Instant::now() + limit,
            alarm: Box::pin(tokio::time::sleep(limit)),
            used: Instant::now(),
        }
    }

    /// Returns the connection's target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Connects, if the connection is down.
    pub async fn connect(&mut self) -> Result<(), Failure> {
        if self.stream.is_some() && (self.used.elapsed() < STALE || self.is_open()) {
            return Ok(());
        }
        self.stream = None;
        let connected = tokio::time::timeout(self.limit, TcpStream::connect(self.target.address)).await;
        let stream = connected
            .map_err(|_| Failure::Connect)?
            .map_err(|_| Failure::Connect)?;
        // Requests are small and written whole, so waiting to fill a packet would only delay them.
        stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
        self.stream = Some(stream);
        self.used = Instant::now();
        Ok(())
    }

    /// True if the other side has neither closed the connection nor sent anything without a request.
    fn is_open(&self) -> bool {
        let mut unasked = [0];
        self.stream
            .as_ref()
            .is_some_and(|stream| matches!(stream.try_read(&mut unasked), Err(error) if error.kind() == ErrorKind::WouldBlock))
    }

    /// Sends a request and waits for its whole answer. After a failure the connection is down.
    ///
    /// Not cancel safe: if this future is dropped before it completes, the rest of an answer may be read as
    /// the next answer.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Response, Failure> {
        self.deadline = tokio::time::Instant::now() + self.limit;
        let answered = self.answer(request).await;
        match &answered {
            Ok(response) if response.keep_alive && response.length == self.filled => {
                self.used = Instant::now();
            }
            // Bytes after the answer belong to no request.
            Ok(_) | Err(_) => self.stream = None,
        }
        answered
    }

    /// Sends a request and closes the connection without waiting for the answer.
    pub async fn abandon(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.deadline = tokio::time::Instant::now() + self.limit;
        let sent = self.send(request).await;
        // Closed by the reset that a crashed client sends, the request might be lost with the answer.
        if let Some(mut stream) = self.stream.take() {
            let _ = stream.shutdown().await;
        }
        sent
    }

    /// Returns the body of the last answer.
    pub fn body<'c>(&'c self, response: &Response) -> &'c [u8] {
        response.body(&self.buffer, &self.scratch)
    }

    async fn answer(&mut self, request: &[u8]) -> Result<Response, Failure> {
        self.send(request).await?;
        self.filled = 0;
        loop {
            if self.filled == self.buffer.len() {
                if self.filled >= ANSWER_BYTES_MAX {
                    return Err(Failure::Malformed);
                }
                self.buffer.resize(2 * self.filled, 0);
            }
            let ended = match poll_fn(|context| self.poll_read(context)).await? {
                0 => true,
                read => {
                    self.filled += read;
                    false
                }
            };
            match response::parse(&self.buffer[..self.filled], ended, &mut self.scratch) {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => {}
                Err(response::Malformed::Cut) => return Err(Failure::Cut),
                Err(_) => return Err(Failure::Malformed),
            }
        }
    }

    async fn send(&mut self, mut request: &[u8]) -> Result<(), Failure> {
        while !request.is_empty() {
            let sent = poll_fn(|context| {
                let stream = self.stream.as_mut().ok_or(Failure::Connect)?;
                match Pin::new(stream).poll_write(context, request) {
                    Poll::Ready(Ok(sent)) => Poll::Ready(Ok(sent)),
                    Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Cut)),
                    Poll::Pending => self.poll_limit(context),
                }
            });
            request = &request[sent.await?..];
        }
        Ok(())
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        let stream = self.stream.as_mut().ok_or(Failure::Connect)?;
        let mut free = ReadBuf::new(&mut self.buffer[self.filled..]);
        match Pin::new(stream).poll_read(context, &mut free) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(free.filled().len())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::Cut)),
            Poll::Pending => self.poll_limit(context),
        }
    }

    /// Ready when the deadline has passed.
    fn poll_limit<T>(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        while self.alarm.as_mut().poll(context).is_ready() {
            if tokio::time::Instant::now() >= self.deadline {
                return Poll::Ready(Err(Failure::TimeOut));
            }
            self.alarm.as_mut().reset(self.deadline);
        }
        Poll::Pending
    }
}

/// Sends arrivals until there are no more, as the virtual user at this index.
pub(super) async fn serve(worker: Rc<Worker>, index: usize, mut connection: Connection) {
    let users = &worker.plan.virtual_users;
    let Some(delay) = users.start_delay(index) else {
        return;
    };
    worker.pause(delay).await;
    let mut request = Vec::with_capacity(512);
    let mut redial = REDIAL.0;
    while let Some(arrival) = worker.arrivals.next().await {
        match ask(&worker, &mut connection, arrival, &mut request).await {
            Err(Failure::Connect) => {
                tokio::time::sleep(redial).await;
                redial = (redial * 2).min(REDIAL.1);
            }
            Ok(issued) => {
                checkout::use_issued(&worker, &mut connection, arrival, issued).await;
                redial = REDIAL.0;
            }
            Err(_) => redial = REDIAL.0,
        }
        checkout::go_on(&worker, &mut connection).await;
        worker.pause(users.thinking_time()).await;
    }
}

/// Sends one request, and counts and records its outcome. Returns the issuance if it is to be used.
async fn ask(
    worker: &Worker,
    connection: &mut Connection,
    arrival: Arrival,
    request: &mut Vec<u8>,
) -> Result<Option<IssuanceId>, Failure> {
    let asked = worker.plan.crowd.asked(arrival.number);
    let coupon = worker.plan.coupons[worker.plan.crowd.coupon(asked, worker.plan.coupons.len())];
    let mut called = Instant::now();
    let outcome = match connection.connect().await {
        Ok(()) => {
            worker
                .plan
                .crowd
                .write_request(asked, coupon, &connection.target().host, request);
            called = Instant::now();
            connection.exchange(request).await
        }
        Err(failure) => Err(failure),
    };
    let answered = Instant::now();
    let answer = outcome.as_ref().ok().map(|response| Answer {
        status: response.status,
        replayed: response.replayed,
        body: connection.body(response),
    });
    if let Some(recorder) = &worker.recorder
        && !matches!(outcome, Err(Failure::Connect))
    {
        let (mut user, mut key) = (Vec::new(), Vec::new());
        worker.plan.crowd.write_user(asked, &mut user);
        worker.plan.crowd.write_key(asked, &mut key);
        recorder.borrow_mut().record(
            Request::Issue(coupon, &user, &key),
            called,
            answer.map(|answer| (answered, answer)),
        );
    }
    worker.count(
        ISSUE,
        arrival,
        answered,
        outcome
            .as_ref()
            .map(|response| (response, connection.body(response)))
            .map_err(|failure| *failure),
    );
    outcome.map(|response| checkout::issued(worker, &response, connection.body(&response)))
}
