//! A proxy in front of a node's link listener. It cuts connections, delays them, or stalls them without
//! cutting them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Maximum number of pieces in flight, per connection and direction.
const PIECES_MAX: usize = 1_024;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMode {
    /// Passes everything on.
    Pass,
    /// Cuts all connections and closes new ones at once.
    Cut,
    /// Passes nothing and cuts nothing: a silent partition.
    Silent,
    /// Passes nothing on the first connections, and everything on later connections. The value is the number
    /// of those first connections. They are then half-open: one side may have given them up. Any later mode
    /// cuts them.
    SilentBefore(u64),
    /// Passes everything on after this delay.
    Delayed(Duration),
}

/// A proxy, which ends with its runtime.
#[derive(Debug)]
pub struct LinkProxy {
    port: u16,
    mode: Arc<watch::Sender<LinkMode>>,
    opened: Arc<AtomicU64>,
}

impl LinkProxy {
    /// Starts a proxy in front of this port of loopback. Nothing needs to listen there yet.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let proxy = Self {
            port: address.port(),
            mode: Arc::new(watch::Sender::new(LinkMode::Pass)),
            opened: Arc::default(),
        };
        let (mode, opened) = (Arc::clone(&proxy.mode), Arc::clone(&proxy.opened));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(connect(client, target, number, Arc::clone(&mode)));
            }
        });
        proxy
    }

    /// Returns the port of loopback where the proxy listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what the proxy does from now on.
    pub fn set(&self, mode: LinkMode) {
        self.mode.send_replace(mode);
    }

    /// Passes nothing more on the connections that exist now.
    pub fn silence_existing(&self) {
        self.set(LinkMode::SilentBefore(self.opened.load(Ordering::SeqCst)));
    }
}

/// Carries one connection both ways.
async fn connect(client: TcpStream, target: u16, number: u64, mode: Arc<watch::Sender<LinkMode>>) {
    if *mode.borrow() == LinkMode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // The direction that ends first ends the other: a connection is cut as a whole.
    tokio::select! {
        () = carry(number, from_client, to_server, mode.subscribe()) => {}
        () = carry(number, from_server, to_client, mode.subscribe()) => {}
    }
}

/// Carries one direction until it ends or is cut.
async fn carry(number: u64, from: OwnedReadHalf, to: OwnedWriteHalf, mode: watch::Receiver<LinkMode>) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::select! {
        () = take(number, from, sender, mode) => {}
        () = deliver(to, receiver) => {}
    }
}

/// Reads pieces and determines when each is due at the other end.
async fn take(
    number: u64,
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    mut modes: watch::Receiver<LinkMode>,
) {
    let mut buffer = vec![0; 1 << 16];
    let mut mode = *modes.borrow_and_update();
    loop {
        let silent = matches!(mode, LinkMode::Silent)
            || matches!(mode, LinkMode::SilentBefore(before) if number < before);
        tokio::select! {
            // A piece that is read after a change of mode is subject to the new mode.
            biased;
            changed = modes.changed() => {
                let before = std::mem::replace(&mut mode, *modes.borrow_and_update());
                // One side may have given this connection up, and would refuse what comes over it.
                let given_up = matches!(before, LinkMode::SilentBefore(before) if number < before);
                if changed.is_err() || mode == LinkMode::Cut || given_up {
                    return;
                }
            }
            read = from.read(&mut buffer), if !silent => {
                let Ok(read @ 1..) = read else { return };
                let delay = if let LinkMode::Delayed(delay) = mode { delay } else { Duration::ZERO };
                if pieces.send((Instant::now() + delay, buffer[..read].to_vec())).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn deliver(mut to: OwnedWriteHalf, mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Some((due, piece)) = pieces.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
