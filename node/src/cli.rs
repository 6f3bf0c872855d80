//! What can be asked of the program.

mod token;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::token::Token;
use crate::config::{Config, Sources};
use crate::signals::Signals;
use crate::wiring::{self, Service};
use crate::{healthcheck, telemetry, welcome};

/// The version and the commit it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FIRSTCOME_COMMIT"), ")");

/// What no option shows.
const ENVIRONMENT: &str = "Every key can come from the environment as well: FIRSTCOME__HTTP__LISTEN is http.listen. Options go over the environment, and the \
    environment over the file. `firstcome config check` prints all keys.";

/// Limited coupons, first come, first served.
#[derive(Debug, Parser)]
#[command(name = "firstcome", version = VERSION, after_help = ENVIRONMENT)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the configuration comes from, besides the environment.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct Settings {
    /// A configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen (http.listen)
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where to keep data (data_dir)
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Any other key, like http.deadline=1s; may be given several times
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (what happens without a command)
    Serve,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Bring the database's schema up to date, and exit
    Migrate,
    /// Mint a token (JWT) for development, and print it
    Token(Token),
    /// Ask the node at the configured address whether it is ready: exit 0 if it is, 1 if not
    Healthcheck,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check it and print what is in effect, with secrets hidden
    Check,
}

impl Cli {
    /// Does what was asked.
    pub async fn run(self) -> Result<(), Box<dyn Error>> {
        let config = self.settings.sources().load()?;
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(&config).await,
            Command::Config(ConfigCommand::Check) => {
                wiring::check(&config)?;
                print!("{}", config.to_toml()?);
                Ok(())
            }
            Command::Migrate => {
                telemetry::log(&config.log);
                Ok(wiring::migrate(&config).await?)
            }
            Command::Token(token) => {
                println!("{}", token.mint(&config.auth)?);
                Ok(())
            }
            Command::Healthcheck => Ok(healthcheck::ask(&config.http).await?),
        }
    }
}

/// Runs a node until a signal; a second one ends the process at once.
async fn serve(config: &Config) -> Result<(), Box<dyn Error>> {
    telemetry::log(&config.log);
    let mut signals = Signals::listen()?;
    let service = tokio::select! {
        started = Service::start(config) => started?,
        () = signals.next() => return Ok(()),
    };
    tokio::select! {
        () = service.ready() => {
            tracing::info!("ready");
            welcome::print(&service, config).await;
            signals.next().await;
        }
        () = signals.next() => {}
    }
    tracing::info!("stopping");
    tokio::select! {
        stopped = service.stop() => Ok(stopped?),
        () = signals.next() => Err("ended by a second signal before everything was stopped".into()),
    }
}

impl Settings {
    fn sources(&self) -> Sources {
        let listen = self
            .listen
            .map(|address| ("http.listen".to_owned(), address.to_string()));
        let data_dir = self
            .data_dir
            .clone()
            .map(|directory| ("data_dir".to_owned(), directory));
        Sources {
            file: self.config.clone(),
            flags: self.set.iter().cloned().chain(listen).chain(data_dir).collect(),
        }
    }
}

fn key_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
