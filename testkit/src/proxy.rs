//! A proxy between a store and its server that cuts, refuses or holds up connections on command, at a moment
//! that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a proxy does to the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Lets everything pass.
    Pass,
    /// Cuts the connection of the next batch before the server has any of it.
    CutBeforeSending,
    /// Cuts it when the server has all of it.
    CutAfterSending,
    /// Cuts it when the server has answered, and keeps the answer.
    CutAfterAnswer,
    /// Cuts nothing, and keeps the answer: as from a server that waits for room to log the commit.
    KeepAnswer,
    /// Cuts everything, and takes no connection.
    Refuse,
    /// Lets nothing pass, and cuts nothing: a silent partition.
    Hold,
}

/// What a proxy always does, whatever its mode.
#[derive(Debug, Clone, Copy)]
pub enum Habit {
    /// Nothing.
    None,
    /// Says something else to the server, of the same length: as one with rules of its own for sessions.
    Replace(&'static str, &'static str),
    /// Says more to the server at the end of a statement that holds this, which must be short enough to come
    /// in one piece.
    Append(&'static str, &'static str),
    /// Lets nothing more pass on a connection that says this to the server, and does not cut it.
    MuteAt(&'static str),
}

/// What comes before the bytes of a packet: their length, and a number.
const HEAD_BYTES: usize = 4;

/// What a batch begins with.
const BATCH: &[u8] = b"INSERT INTO issuances (";

/// A proxy; it ends with its runtime.
#[derive(Debug, Clone)]
pub struct Proxy {
    port: u16,
    habit: Habit,
    mode: Arc<watch::Sender<Mode>>,
    cuts: Arc<AtomicU32>,
}

impl Proxy {
    /// A proxy before a server on this port of loopback.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn before(server: u16) -> Self {
        Self::with_habit(server, Habit::None).await
    }

    /// The same with a habit.
    ///
    /// # Panics
    /// If loopback has no free port, or what is said instead is of another length.
    pub async fn with_habit(server: u16, habit: Habit) -> Self {
        assert!(
            !matches!(habit, Habit::Replace(said, instead) if said.len() != instead.len()),
            "a packet says how long it is"
        );
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let proxy = Self {
            port,
            habit,
            mode: Arc::new(watch::Sender::new(Mode::Pass)),
            cuts: Arc::default(),
        };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = accepting.clone();
                tokio::spawn(async move { proxy.carry(client, server).await });
            }
        });
        proxy
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it does this.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many batches were cut, or their answers kept.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// What is to be done to this batch. A cut is for one batch.
    fn fate_of_batch(&self) -> Mode {
        let mode = *self.mode.borrow();
        if matches!(
            mode,
            Mode::CutBeforeSending | Mode::CutAfterSending | Mode::CutAfterAnswer | Mode::KeepAnswer
        ) {
            self.cuts.fetch_add(1, Ordering::Relaxed);
            self.set(Mode::Pass);
        }
        mode
    }

    /// Does to these bytes what it always does; true if nothing more may pass.
    fn keeps_its_habit(&self, bytes: &mut [u8]) -> bool {
        match self.habit {
            Habit::None | Habit::Append(..) => false,
            Habit::Replace(said, instead) => {
                if let Some(at) = position(bytes, said.as_bytes()) {
                    bytes[at..at + said.len()].copy_from_slice(instead.as_bytes());
                }
                false
            }
            Habit::MuteAt(said) => position(bytes, said.as_bytes()).is_some(),
        }
    }

    /// What it always says behind these bytes, counted in the length of their packet; mostly nothing.
    fn more_behind(&self, bytes: &mut [u8]) -> &'static [u8] {
        let Habit::Append(said, more) = self.habit else {
            return &[];
        };
        if position(bytes, said.as_bytes()).is_none() {
            return &[];
        }
        assert_eq!(
            bytes.len(),
            packet_bytes(bytes) + HEAD_BYTES,
            "one packet, and all of it"
        );
        let length = (packet_bytes(bytes) + more.len()).to_le_bytes();
        bytes[..3].copy_from_slice(&length[..3]);
        more.as_bytes()
    }

    /// Carries one connection until either side ends it, or this proxy does: both ends are closed when this
    /// returns.
    async fn carry(&self, mut client: TcpStream, server: u16) -> Option<()> {
        let mut mode = self.mode.subscribe();
        let mut server = TcpStream::connect(("127.0.0.1", server)).await.ok()?;
        let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let now = *mode.borrow_and_update();
            match now {
                Mode::Refuse => return None,
                Mode::Hold => {
                    mode.changed().await.ok()?;
                    continue;
                }
                _ => {}
            }
            tokio::select! {
                _ = mode.changed() => {}
                read = client.read(&mut asked) => {
                    let bytes = &mut asked[..read.ok().filter(|read| *read > 0)?];
                    if self.keeps_its_habit(bytes) {
                        return until_it_ends(&mut client).await;
                    }
                    let is_batch = position(bytes, BATCH).is_some();
                    let fate = if is_batch { self.fate_of_batch() } else { Mode::Pass };
                    if fate == Mode::CutBeforeSending {
                        return None;
                    }
                    let more = self.more_behind(bytes);
                    server.write_all(bytes).await.ok()?;
                    server.write_all(more).await.ok()?;
                    if matches!(fate, Mode::CutAfterSending | Mode::CutAfterAnswer | Mode::KeepAnswer) {
                        let mut rest = vec![0; (packet_bytes(bytes) + HEAD_BYTES).saturating_sub(bytes.len())];
                        client.read_exact(&mut rest).await.ok()?;
                        server.write_all(&rest).await.ok()?;
                        if fate == Mode::CutAfterAnswer {
                            server.readable().await.ok()?;
                        }
                        if fate == Mode::KeepAnswer {
                            return until_it_ends(&mut client).await;
                        }
                        return None;
                    }
                }
                read = server.read(&mut answered) => {
                    let bytes = &answered[..read.ok().filter(|read| *read > 0)?];
                    client.write_all(bytes).await.ok()?;
                }
            }
        }
    }
}

/// How long the packet is that begins so, behind its head: as its first three bytes say.
fn packet_bytes(packet: &[u8]) -> usize {
    usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16
}

/// Where these bytes stand in others.
fn position(bytes: &[u8], searched: &[u8]) -> Option<usize> {
    bytes
        .windows(searched.len())
        .position(|window| window == searched)
}

/// Reads a connection until its client ends it, and answers nothing.
async fn until_it_ends(client: &mut TcpStream) -> Option<()> {
    let mut unheard = [0; 1024];
    while client.read(&mut unheard).await.ok()? > 0 {}
    None
}
