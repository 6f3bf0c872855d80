//! What lies between a node's links and those who dial them: a proxy that cuts, delays, or lets nothing pass
//! and cuts nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Pieces that are on their way: what a long line holds.
const PIECES_MAX: usize = 1_024;

/// What becomes of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It passes.
    Pass,
    /// It is cut, also what is to come.
    Cut,
    /// Nothing passes and nothing is cut: a silent partition.
    Silent,
    /// Nothing passes ever again on those of the first so many connections; others pass. Half-open: one side
    /// may have forgotten it.
    SilentBefore(u64),
    /// It arrives so much later.
    Delayed(Duration),
}

/// A proxy; it ends with its runtime.
pub struct Wire {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    opened: Arc<AtomicU64>,
}

impl Wire {
    /// Before whoever listens, or will, at this port of loopback.
    pub async fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            mode: Arc::new(watch::Sender::new(Mode::Pass)),
            opened: Arc::default(),
        };
        let (mode, opened) = (Arc::clone(&wire.mode), Arc::clone(&wire.opened));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(connect(client, target, number, Arc::clone(&mode)));
            }
        });
        wire
    }

    /// Where it listens on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on this becomes of the traffic.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Nothing passes any more on the connections that are there now.
    pub fn silence_what_is_there(&self) {
        self.set(Mode::SilentBefore(self.opened.load(Ordering::SeqCst)));
    }
}

/// Carries one connection both ways.
async fn connect(client: TcpStream, target: u16, number: u64, mode: Arc<watch::Sender<Mode>>) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Whichever ends first ends the other: a connection is cut as a whole.
    tokio::select! {
        () = carry(number, from_client, to_server, mode.subscribe()) => {}
        () = carry(number, from_server, to_client, mode.subscribe()) => {}
    }
}

/// Carries one way until it ends or is cut.
async fn carry(number: u64, from: OwnedReadHalf, to: OwnedWriteHalf, mode: watch::Receiver<Mode>) {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::select! {
        () = take(number, from, sender, mode) => {}
        () = deliver(to, receiver) => {}
    }
}

/// Reads, and says when each piece is to arrive.
async fn take(
    number: u64,
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    mut modes: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 1 << 16];
    let mut mode = *modes.borrow_and_update();
    loop {
        let silent =
            matches!(mode, Mode::Silent) || matches!(mode, Mode::SilentBefore(before) if number < before);
        tokio::select! {
            // What is read after the mode was changed is treated by it.
            biased;
            changed = modes.changed() => {
                let before = std::mem::replace(&mut mode, *modes.borrow_and_update());
                // What was forgotten on one side is refused there when it speaks again.
                let forgotten = matches!(before, Mode::SilentBefore(before) if number < before);
                if changed.is_err() || mode == Mode::Cut || forgotten {
                    return;
                }
            }
            read = from.read(&mut buffer), if !silent => {
                let Ok(read @ 1..) = read else { return };
                let delay = if let Mode::Delayed(delay) = mode { delay } else { Duration::ZERO };
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
