//! A proxy between a store and its database server. On command it cuts, refuses or stalls connections, at the
//! moments of a batch that matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with connections. A mode for the next batch is followed by [`Self::Pass`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseMode {
    /// Passes everything on.
    Pass,
    /// Cuts the connection of the next batch before the server has received any of the batch.
    CutBeforeSending,
    /// Cuts the connection of the next batch once the server has received the whole batch.
    CutAfterSending,
    /// Cuts the connection of the next batch once the server has answered, and drops the answer.
    CutAfterAnswer,
    /// Drops the answer to the next batch and does not cut the connection, like a server that waits for room
    /// to log the commit.
    KeepAnswer,
    /// Keeps batches of uses until the mode changes, and passes them on then, as a slow network would. Passes
    /// everything else.
    KeepUses,
    /// Cuts all connections and closes new ones at once.
    Refuse,
    /// Passes nothing and cuts nothing: a silent partition.
    Hold,
}

/// What the proxy does with certain statements, in every mode.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Nothing.
    None,
    /// Replaces the first text by the second, which has the same length.
    Replace(&'static str, &'static str),
    /// Appends the second text to a statement that contains the first. The statement must fit into one read.
    Append(&'static str, &'static str),
    /// Passes nothing more on a connection that sends this text, and does not cut it.
    MuteAt(&'static str),
}

/// Bytes of a packet's head: the length of its body and a number.
const HEAD_BYTES: usize = 4;

/// The beginning of every batch of issuances.
const BATCH: &[u8] = b"INSERT INTO issuances (";

/// The beginning of every batch of uses.
const BATCH_OF_USES: &[u8] = b"INSERT INTO uses (";

/// A proxy, which ends with its runtime.
#[derive(Debug, Clone)]
pub struct DatabaseProxy {
    port: u16,
    rule: Rule,
    mode: Arc<watch::Sender<DatabaseMode>>,
    /// A change silences the connections of that moment.
    silenced: Arc<watch::Sender<()>>,
    accepted: Arc<AtomicU32>,
    cuts: Arc<AtomicU32>,
    /// How many batches were kept, and how many of these the server has answered.
    kept: Arc<AtomicU32>,
    answered: Arc<AtomicU32>,
    /// How long everything takes in each direction, in microseconds.
    delay_micros: Arc<AtomicU64>,
}

impl DatabaseProxy {
    /// Starts a proxy in front of a server on this port of loopback.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn before(server: u16) -> Self {
        Self::with_rule(server, Rule::None).await
    }

    /// Starts a proxy that also applies this rule.
    ///
    /// # Panics
    /// If loopback has no free port, or a replacement has another length than the replaced text.
    pub async fn with_rule(server: u16, rule: Rule) -> Self {
        assert!(
            !matches!(rule, Rule::Replace(text, other) if text.len() != other.len()),
            "a replacement must keep the length of a packet"
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
            rule,
            mode: Arc::new(watch::Sender::new(DatabaseMode::Pass)),
            silenced: Arc::new(watch::Sender::new(())),
            accepted: Arc::default(),
            cuts: Arc::default(),
            kept: Arc::default(),
            answered: Arc::default(),
            delay_micros: Arc::default(),
        };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, silenced) = (accepting.clone(), accepting.silenced.subscribe());
                proxy.accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move { proxy.carry(client, server, silenced).await });
            }
        });
        proxy
    }

    /// Returns the port of loopback where the proxy listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what the proxy does from now on.
    pub fn set(&self, mode: DatabaseMode) {
        self.mode.send_replace(mode);
    }

    /// Passes nothing more on the connections of this moment and does not cut them, like a firewall that
    /// dropped them because they were unused. Later connections are not affected.
    pub fn silence(&self) {
        self.silenced.send_replace(());
    }

    /// Returns how many connections were made so far.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Delays everything by this time in each direction from now on, as a network would.
    ///
    /// # Panics
    /// If the delay has more microseconds than fit into 64 bits.
    pub fn delay(&self, each_way: Duration) {
        let micros = u64::try_from(each_way.as_micros()).expect("a delay is short");
        self.delay_micros.store(micros, Ordering::Relaxed);
    }

    async fn travel(&self) {
        let micros = self.delay_micros.load(Ordering::Relaxed);
        if micros > 0 {
            tokio::time::sleep(Duration::from_micros(micros)).await;
        }
    }

    /// Returns how many batches were cut or lost their answers.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Returns how many batches of uses were kept.
    pub fn kept(&self) -> u32 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Returns how many of the batches that were kept were passed on later, and answered by the server.
    pub fn kept_and_answered(&self) -> u32 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until this may be passed on, if it is a batch to be kept. Returns true if it was kept.
    async fn keep(&self, bytes: &[u8]) -> bool {
        let mut mode = self.mode.subscribe();
        let is_kept = *mode.borrow() == DatabaseMode::KeepUses && position(bytes, BATCH_OF_USES).is_some();
        if is_kept {
            self.kept.fetch_add(1, Ordering::Relaxed);
            // It fails only if the proxy is gone.
            let _ = mode.wait_for(|mode| *mode != DatabaseMode::KeepUses).await;
        }
        is_kept
    }

    /// Returns the mode for a batch, and ends a mode that is meant for one batch.
    fn take_mode_of_batch(&self) -> DatabaseMode {
        let mode = *self.mode.borrow();
        if matches!(
            mode,
            DatabaseMode::CutBeforeSending
                | DatabaseMode::CutAfterSending
                | DatabaseMode::CutAfterAnswer
                | DatabaseMode::KeepAnswer
        ) {
            self.cuts.fetch_add(1, Ordering::Relaxed);
            self.set(DatabaseMode::Pass);
        }
        mode
    }

    /// Applies a rule that keeps lengths. Returns true if nothing more may pass.
    fn mutes(&self, bytes: &mut [u8]) -> bool {
        match self.rule {
            Rule::None | Rule::Append(..) => false,
            Rule::Replace(text, other) => {
                if let Some(at) = position(bytes, text.as_bytes()) {
                    bytes[at..at + text.len()].copy_from_slice(other.as_bytes());
                }
                false
            }
            Rule::MuteAt(text) => position(bytes, text.as_bytes()).is_some(),
        }
    }

    /// Returns what a rule appends to this packet, and corrects the packet's length.
    fn appended(&self, bytes: &mut [u8]) -> &'static [u8] {
        let Rule::Append(text, more) = self.rule else {
            return &[];
        };
        if position(bytes, text.as_bytes()).is_none() {
            return &[];
        }
        assert_eq!(
            bytes.len(),
            packet_bytes(bytes) + HEAD_BYTES,
            "the statement is one whole packet"
        );
        let length = (packet_bytes(bytes) + more.len()).to_le_bytes();
        bytes[..3].copy_from_slice(&length[..3]);
        more.as_bytes()
    }

    /// Carries one connection until either side or this proxy ends it. Both sides are closed when this
    /// returns.
    async fn carry(
        &self,
        mut client: TcpStream,
        server: u16,
        mut silenced: watch::Receiver<()>,
    ) -> Option<()> {
        let mut mode = self.mode.subscribe();
        let mut server = TcpStream::connect(("127.0.0.1", server)).await.ok()?;
        // Over a real network, the handshake of the connection would take this long: one way and back.
        self.travel().await;
        self.travel().await;
        let (mut sent, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let now = *mode.borrow_and_update();
            match now {
                DatabaseMode::Refuse => return None,
                DatabaseMode::Hold => {
                    mode.changed().await.ok()?;
                    continue;
                }
                _ => {}
            }
            tokio::select! {
                _ = mode.changed() => {}
                _ = silenced.changed() => return until_it_ends(&mut client).await,
                read = client.read(&mut sent) => {
                    let bytes = &mut sent[..read.ok().filter(|read| *read > 0)?];
                    if self.mutes(bytes) {
                        return until_it_ends(&mut client).await;
                    }
                    let is_batch = position(bytes, BATCH).is_some();
                    let mode = if is_batch { self.take_mode_of_batch() } else { DatabaseMode::Pass };
                    if mode == DatabaseMode::CutBeforeSending {
                        return None;
                    }
                    let is_kept = self.keep(bytes).await;
                    let more = self.appended(bytes);
                    self.travel().await;
                    server.write_all(bytes).await.ok()?;
                    server.write_all(more).await.ok()?;
                    if is_kept {
                        server.readable().await.ok()?;
                        self.answered.fetch_add(1, Ordering::Relaxed);
                    }
                    if matches!(mode, DatabaseMode::CutAfterSending | DatabaseMode::CutAfterAnswer | DatabaseMode::KeepAnswer) {
                        return end_batch(mode, bytes, &mut client, &mut server).await;
                    }
                }
                read = server.read(&mut answered) => {
                    let mut length = read.ok().filter(|read| *read > 0)?;
                    self.travel().await;
                    // What the server sent during this delay was delayed at the same time.
                    if let Ok(more) = server.try_read(&mut answered[length..]) {
                        length += more;
                    }
                    client.write_all(&answered[..length]).await.ok()?;
                }
            }
        }
    }
}

/// Sends the rest of a batch to the server, and ends the connection as the mode says.
async fn end_batch(
    mode: DatabaseMode,
    begun: &[u8],
    client: &mut TcpStream,
    server: &mut TcpStream,
) -> Option<()> {
    let mut rest = vec![0; (packet_bytes(begun) + HEAD_BYTES).saturating_sub(begun.len())];
    client.read_exact(&mut rest).await.ok()?;
    server.write_all(&rest).await.ok()?;
    if mode == DatabaseMode::CutAfterAnswer {
        server.readable().await.ok()?;
    }
    if mode == DatabaseMode::KeepAnswer {
        return until_it_ends(client).await;
    }
    None
}

/// Returns the length of a packet's body, from the first three bytes of its head.
fn packet_bytes(packet: &[u8]) -> usize {
    usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16
}

/// Returns where the searched bytes occur first.
fn position(bytes: &[u8], searched: &[u8]) -> Option<usize> {
    bytes
        .windows(searched.len())
        .position(|window| window == searched)
}

/// Reads a connection until its client ends it, and sends nothing.
async fn until_it_ends(client: &mut TcpStream) -> Option<()> {
    let mut ignored = [0; 1024];
    while client.read(&mut ignored).await.ok()? > 0 {}
    None
}
