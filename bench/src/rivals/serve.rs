//! `firstcome-bench rival`: one rival as a process of its own, so that it can be killed and its processor
//! time can be counted.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use clap::Args;
use node::listener::{Listener, Options};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::database::Database;
use super::gateway::{Gateway, routes};
use super::kind::RivalKind;
use crate::load::Failed;
use crate::verify::{BAD_INPUT, CLEAN};

/// How long requests in progress may take after a signal to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The rival to serve.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// The rival.
    #[arg(value_enum)]
    kind: RivalKind,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// URL of the database in MySQL, which is empty or was made by the same rival.
    #[arg(long)]
    database: String,
    /// URL of a Redis with a database for this rival alone, like redis://127.0.0.1:6379/1.
    #[arg(long)]
    redis: Option<String>,
    /// Connections to the database; the default depends on the rival.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: Option<u16>,
}

impl Serve {
    /// Serves until a signal ends the process. Prints the URL once requests are served.
    pub async fn run(&self) -> ExitCode {
        match self.served().await {
            Ok(()) => ExitCode::from(CLEAN),
            Err(error) => {
                eprintln!("firstcome-bench: {error}");
                ExitCode::from(BAD_INPUT)
            }
        }
    }

    async fn served(&self) -> Result<(), Failed> {
        let coupons = Database::new(&self.database, 2)?;
        let mut connection = coupons.take().await?;
        self.kind.layout().make(&mut connection).await?;
        connection.keep();
        let connections = self.connections.unwrap_or(self.kind.connections());
        let database = Database::new(&self.database, connections)?;
        let rival = self.kind.start(database, self.redis.as_deref()).await?;
        let gateway = Arc::new(Gateway {
            coupons,
            rival,
            errors: AtomicU32::new(0),
        });
        let socket = TcpListener::bind(self.listen).await?;
        let options = Options {
            is_hot: |_, _| true,
            ..Options::default()
        };
        let listener = Listener::serve(socket, routes(&gateway), options)?;
        println!("http://{}", listener.address());
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminated.recv() => {}
            interrupted = tokio::signal::ctrl_c() => interrupted?,
        }
        listener.stop(STOP_LIMIT).await;
        Ok(())
    }
}
