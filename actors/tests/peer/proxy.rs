//! A proxy between two nodes that cuts, or lets nothing pass and cuts nothing: a partition that nobody is
//! told of.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Cuts everything, also what is to come.
    Cut,
    /// Swallows what comes over connections that are there, and passes new ones.
    SilenceOld(u64),
}

pub struct Proxy {
    pub port: u16,
    mode: Arc<watch::Sender<Mode>>,
    opened: Arc<std::sync::atomic::AtomicU64>,
}

impl Proxy {
    pub async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let opened = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let (accepting, count) = (Arc::clone(&mode), Arc::clone(&opened));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                if *accepting.borrow() == Mode::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
                    continue;
                };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(carry(number, from_client, to_server, accepting.subscribe()));
                tokio::spawn(carry(number, from_server, to_client, accepting.subscribe()));
            }
        });
        Self { port, mode, opened }
    }

    /// Cuts every connection, also those to come.
    pub fn cut_for_good(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Nothing more passes on the connections that are there now.
    pub fn silence(&self) {
        let number = self.opened.load(std::sync::atomic::Ordering::SeqCst);
        self.mode.send_replace(Mode::SilenceOld(number));
    }

    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

async fn carry(
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            changed = mode.changed() => match changed {
                // A cut that is over before it is seen was one all the same: the mode changed.
                Ok(()) if matches!(*mode.borrow(), Mode::Cut | Mode::Pass) => return,
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        let silenced = matches!(*mode.borrow(), Mode::SilenceOld(before) if number < before);
        if read == 0 && silenced {
            // The end of a partitioned connection does not arrive either.
            std::future::pending::<()>().await;
        }
        if read == 0 || (!silenced && to.write_all(&buffer[..read]).await.is_err()) {
            return;
        }
    }
}
