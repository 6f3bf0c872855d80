//! A proxy between a store and its server that cuts, refuses or holds up connections on command, at a moment that counts.

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
    /// Cuts everything, and takes no connection.
    Refuse,
    /// Lets nothing pass, and cuts nothing: a silent partition.
    Hold,
}

/// What a batch begins with.
const BATCH: &[u8] = b"INSERT INTO issuances (";

/// A proxy; it ends with its runtime.
#[derive(Debug, Clone)]
pub struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    cuts: Arc<AtomicU32>,
}

impl Proxy {
    /// A proxy before a server on this port of loopback.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let proxy = Self { port, mode: Arc::new(watch::Sender::new(Mode::Pass)), cuts: Arc::default() };
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

    /// How many batches were cut.
    pub fn cuts(&self) -> u32 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// What is to be done to this batch. A cut is for one batch.
    fn fate_of_batch(&self) -> Mode {
        let mode = *self.mode.borrow();
        if matches!(mode, Mode::CutBeforeSending | Mode::CutAfterSending | Mode::CutAfterAnswer) {
            self.cuts.fetch_add(1, Ordering::Relaxed);
            self.set(Mode::Pass);
        }
        mode
    }

    /// Carries one connection until either side ends it, or this proxy does: both ends are closed when this returns.
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
                    let bytes = &asked[..read.ok().filter(|read| *read > 0)?];
                    let is_batch = bytes.windows(BATCH.len()).any(|window| window == BATCH);
                    let fate = if is_batch { self.fate_of_batch() } else { Mode::Pass };
                    if fate == Mode::CutBeforeSending {
                        return None;
                    }
                    server.write_all(bytes).await.ok()?;
                    if matches!(fate, Mode::CutAfterSending | Mode::CutAfterAnswer) {
                        // The rest of the packet, whose length stands in its first three bytes.
                        let length = usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16;
                        let mut rest = vec![0; (length + 4).saturating_sub(bytes.len())];
                        client.read_exact(&mut rest).await.ok()?;
                        server.write_all(&rest).await.ok()?;
                        if fate == Mode::CutAfterAnswer {
                            server.readable().await.ok()?;
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
