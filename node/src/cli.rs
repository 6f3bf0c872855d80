//! The command line.

mod key;
mod token;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use self::key::Key;
use self::token::Token;
use crate::config::{Config, Sources, keys};
use crate::signals::Signals;
use crate::wiring::{self, RunningNode};
use crate::{healthcheck, log, welcome};

/// The version, and the commit that the program was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FIRSTCOME_COMMIT"), ")");

/// How long tasks that block may take once everything else has ended.
const RUNTIME_LIMIT: Duration = Duration::from_secs(1);

/// Help after the options.
const ENVIRONMENT: &str = "The environment sets keys as well: FIRSTCOME__HTTP__LISTEN is http.listen. \
    Options override the environment, which overrides the file. `firstcome config check` prints the \
    effective configuration.";

/// Limited coupons, first come, first served.
#[derive(Debug, Parser)]
#[command(name = "firstcome", version = VERSION, after_help = ENVIRONMENT)]
pub struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Sources of the configuration, besides the environment.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
struct Settings {
    /// A configuration file (TOML)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on, like 127.0.0.1:8080 (http.listen)
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Directory for data (data_dir)
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Any other key, like http.deadline=1s; may be given several times
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Serve,
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Migrate the schema of the database, and exit
    Migrate,
    /// Mint a token (JWT) for development, and print it
    Token(Token),
    /// Make a secret for a named key: prints the entry for the file of keys (`auth.keys_file`), and the
    /// secret on the standard error
    Key(Key),
    /// Manage the secrets under which codes of issuances are signed
    #[command(subcommand)]
    Codes(CodesCommand),
    /// Ask the node at the configured address whether it is ready: exit with 0 if it is ready, and with 1 if
    /// it is not
    Healthcheck,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration and print what is in effect, with secrets hidden
    Check,
    /// Print the table of all keys in Markdown
    #[command(hide = true)]
    Table,
}

#[derive(Debug, Subcommand)]
enum CodesCommand {
    /// Make a new secret. Running nodes sign codes under it a minute later. Codes of before stay good
    Rotate,
}

impl Cli {
    /// Runs the command, and says on the standard error why it fails. This function is not `async`, so that
    /// the program's futures are compiled with this library and not once more with each program.
    pub fn run(self) -> ExitCode {
        let ended = Runtime::new().map_err(Into::into).and_then(|runtime| {
            let ended = runtime.block_on(self.execute());
            // Dropping the runtime would wait for a blocked disk without end.
            runtime.shutdown_timeout(RUNTIME_LIMIT);
            ended
        });
        let code = match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::fail(&error);
                ExitCode::FAILURE
            }
        };
        log::flush();
        code
    }

    async fn execute(self) -> Result<(), Box<dyn Error>> {
        let command = self.command.unwrap_or(Command::Serve);
        if let Command::Config(ConfigCommand::Table) = command {
            return print(&keys::markdown());
        }
        if let Command::Key(key) = command {
            return print(&key.make()?);
        }
        let config = self.settings.sources().load()?;
        match command {
            Command::Serve => serve(&config).await,
            // Both need no configuration.
            Command::Config(ConfigCommand::Table) | Command::Key(_) => Ok(()),
            Command::Config(ConfigCommand::Check) => {
                wiring::check(&config)?;
                for warning in config.warnings() {
                    let _ = writeln!(io::stderr(), "firstcome: {warning}");
                }
                print(&config.to_toml()?)
            }
            Command::Migrate => {
                log::start(&config.log)?;
                Ok(wiring::migrate(&config).await?)
            }
            Command::Codes(CodesCommand::Rotate) => {
                let number = wiring::rotate_codes(&config).await?;
                print(&format!(
                    "made secret {number}: running nodes learn of it within 10 s, and sign codes under it in a \
                     minute\n"
                ))
            }
            Command::Token(token) => print(&format!("{}\n", token.mint(&config.auth)?)),
            Command::Healthcheck => Ok(healthcheck::check(&config.http).await?),
        }
    }
}

/// Prints a text. A standard output that is closed or full is an error like any other.
fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    Ok(printed.map_err(|error| format!("the standard output: {error}"))?)
}

/// Runs a node until a signal; a second signal ends the process at once.
async fn serve(config: &Config) -> Result<(), Box<dyn Error>> {
    log::start(&config.log)?;
    for warning in config.warnings() {
        tracing::warn!("configuration: {warning}");
    }
    let (version, settings) = (env!("CARGO_PKG_VERSION"), config.differences()?.join(", "));
    tracing::info!(version, settings, "starting");
    let mut signals = Signals::listen()?;
    let node = tokio::select! {
        started = RunningNode::start(config) => started?,
        signal = signals.next() => {
            tracing::info!(signal, "ended before the node had started");
            return Ok(());
        }
    };
    let signal = tokio::select! {
        () = node.ready() => {
            tracing::info!(address = %node.address(), "ready");
            welcome::print(&node, config).await;
            signals.next().await
        }
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "stopping");
    tokio::select! {
        stopped = node.stop() => stopped?,
        signal = signals.next() => {
            return Err(format!("ended by a second signal, {signal}, before the node had stopped").into());
        }
    }
    tracing::info!("stopped");
    Ok(())
}

impl Settings {
    fn sources(&self) -> Sources {
        let listen = self
            .listen
            .clone()
            .map(|address| ("http.listen".to_owned(), address));
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
